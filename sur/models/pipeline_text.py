"""The text side of a diffusers pipeline folder: loaded without denoiser and VAE, asked by encode_prompt."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from sur.models.families import FLUX, STABLE_DIFFUSION, STABLE_DIFFUSION_3, STABLE_DIFFUSION_XL, Family, family_of
from sur.models.fingerprint import tokenizer_fingerprint, weights_fingerprint
from sur.models.libraries import free_memory, quiet_libraries
from sur.models.locate import PIPELINE_CONFIG, TEXT_WEIGHTS, TOKENIZER, locate
from sur.support.errors import NotFound


class Encoding(NamedTuple):
    """What a pipeline gives its denoiser: states (batch, tokens, dim), pooled (batch, dim), mask (batch, tokens)."""

    states: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None


class PipelineText:
    """One pipeline folder's tokenizers and text encoders."""

    def __init__(
        self,
        model: str,
        revision: str | None,
        compute_dtype: str,
        device: torch.device,
        t5_tokens: int | None = None,
    ) -> None:
        self.model, self.revision, self._t5_tokens = model, revision, t5_tokens
        self.compute_dtype, self.device = compute_dtype, device
        self._pipe: Any = None
        self._tokenizer: Any = None

    def folder(self, needed: Sequence[str] = PIPELINE_CONFIG) -> Path:
        """Where the pipeline's files are, the needed ones at least."""
        return locate(self.model, self.revision, needed=needed).folder

    def index(self) -> dict[str, Any]:
        """model_index.json.

        Raises: NotFound without that file.
        """
        file = self.folder() / "model_index.json"
        if not file.is_file():
            raise NotFound(f"{file.parent} is no diffusers pipeline folder: it has no model_index.json")
        return json.loads(file.read_text())

    @property
    def family(self) -> Family:
        """The pipeline's family. Raises: ValueError for one that is not supported."""
        return family_of(str(self.index().get("_class_name", "")))

    @property
    def t5_tokens(self) -> int:
        """States that T5 makes of a prompt; 0 without T5."""
        family = self.family
        if self._t5_tokens is not None and not family.t5_tokens:
            raise ValueError(f"text.t5_tokens is set, but {family.name} has no T5; leave it out")
        return self._t5_tokens or family.t5_tokens

    def parts(self, kind: str) -> list[str]:
        """Folders of the pipeline's text encoders (kind "text_encoder") or tokenizers ("tokenizer")."""
        index = self.index()
        return [name for name in (kind, f"{kind}_2", f"{kind}_3") if index.get(name, [None])[0] is not None]

    def sizes(self) -> tuple[int, int, int | None]:
        """Tokens a prompt, width of the states, width of the pooled states (None where there are none); from configs.

        Raises: ValueError for a pipeline without one of its family's text encoders, or with t5_tokens but no T5.
        """
        family, names, t5_tokens = self.family, self.parts("text_encoder"), self.t5_tokens
        configs = [_read(self.folder() / name / "config.json") for name in names]
        if family in (STABLE_DIFFUSION, STABLE_DIFFUSION_XL):
            pooled = configs[-1]["projection_dim"] if family.pooled else None
            return self._clip_tokens(configs[0]), sum(config["hidden_size"] for config in configs), pooled
        wanted = {STABLE_DIFFUSION_3: 3, FLUX: 2}.get(family, 1)
        if len(names) < wanted:
            raise ValueError(f"{self.folder()} has only {names}; {family.name} is supported with its T5")
        width = configs[-1]["d_model"]
        if family is STABLE_DIFFUSION_3:
            pooled = sum(config["projection_dim"] for config in configs[:2])
            return self._clip_tokens(configs[0]) + t5_tokens, width, pooled
        return t5_tokens, width, configs[0]["hidden_size"] if family is FLUX else None

    def counted_tokens(self) -> int:
        """The most real tokens that `lengths` can stand for: those that the first text encoder keeps."""
        if not self.family.clip_first:
            return self.t5_tokens
        return self._clip_tokens(_read(self.folder() / "text_encoder" / "config.json"))

    def _clip_tokens(self, config: dict[str, Any]) -> int:
        tokenizer = self.folder() / "tokenizer" / "tokenizer_config.json"
        tokens = _read(tokenizer).get("model_max_length", 0) if tokenizer.is_file() else 0
        return tokens if 0 < tokens < 10_000 else config["max_position_embeddings"]  # 1e30 stands for "no limit"

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of each text encoder and tokenizer, by folder name."""
        folder = self.folder(TEXT_WEIGHTS)
        made = {part: weights_fingerprint(folder / part) for part in self.parts("text_encoder")}
        return made | {part: tokenizer_fingerprint(folder / part) for part in self.parts("tokenizer")}

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> Encoding:
        """What the pipeline would give its denoiser."""
        pipe, family = self.loaded(), self.family
        given: dict[str, Any] = {"do_classifier_free_guidance": False, "prompt_2": None, "prompt_3": None}
        if family.t5_tokens:
            given["max_sequence_length"] = self.t5_tokens
        if cleans_captions():  # as the pipeline does when it draws
            given["clean_caption"] = True
        known = inspect.signature(pipe.encode_prompt).parameters
        given = {name: value for name, value in given.items() if name in known}
        with quiet_libraries():
            out = pipe.encode_prompt(prompt=list(prompts), device=self.device, num_images_per_prompt=1, **given)
        return Encoding(
            out[0],
            None if family.pooled is None else out[family.pooled],
            None if family.mask is None else out[family.mask],
        )

    def lengths(self, prompts: Sequence[str]) -> Int[Tensor, "batch"]:
        """Tokens of each prompt before any cut, BOS and EOS included, by the family's first states; loads no weights.

        Raises: OSError or ValueError when the pipeline has no usable tokenizer.
        """
        if self._tokenizer is None:
            import transformers

            part = self.family.tokenizer
            kind = getattr(transformers, self.index()[part][1])
            with quiet_libraries():
                self._tokenizer = kind.from_pretrained(self.folder(TOKENIZER) / part, local_files_only=True)
        if self.family.mask is not None:  # as these pipelines read prompts themselves
            prompts = [prompt.lower().strip() for prompt in prompts]
        with quiet_libraries():
            ids = self._tokenizer(list(prompts))["input_ids"] if prompts else []
        return torch.tensor([len(each) for each in ids], dtype=torch.int32)

    def loaded(self) -> Any:
        """The pipeline object with tokenizers and text encoders only."""
        if self._pipe is None:
            from diffusers.pipelines.pipeline_utils import DiffusionPipeline

            kept = {*self.parts("text_encoder"), *self.parts("tokenizer")}
            absent: dict[str, Any] = {
                name: None for name, value in self.index().items() if isinstance(value, list) and name not in kept
            }
            if "requires_safety_checker" in self.index():
                absent["requires_safety_checker"] = False
            with quiet_libraries():
                pipe = DiffusionPipeline.from_pretrained(
                    self.folder(TEXT_WEIGHTS), local_files_only=True, use_safetensors=True, **absent
                )
                self._pipe = pipe.to(self.device, getattr(torch, self.compute_dtype))
        return self._pipe

    def close(self) -> None:
        """Forget the weights."""
        self._pipe = None
        free_memory()


def cleans_captions() -> bool:
    """Whether PixArt's pipelines clean prompts of links and HTML: where the packages for it are installed."""
    from diffusers.utils import is_bs4_available, is_ftfy_available

    return is_bs4_available() and is_ftfy_available()


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise NotFound(f"the pipeline lacks {file}; the download is incomplete")
    return json.loads(file.read_text())
