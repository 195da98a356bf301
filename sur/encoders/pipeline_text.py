"""The text side of a diffusers pipeline folder: loaded without denoiser and VAE, asked by encode_prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sur.encoders.base import free_memory
from sur.encoders.locate import PIPELINE_CONFIG, TEXT_WEIGHTS, locate
from sur.encoders.quiet import quiet_libraries
from sur.fingerprint import tokenizer_fingerprint, weights_fingerprint

# Pipelines whose denoiser reads exactly what encode_prompt returns: states, and for XL pooled states.
FAMILIES = ("StableDiffusionXL", "StableDiffusion")
OTHER_FAMILIES = ("StableDiffusion3", "StableDiffusionLDM3D")


class PipelineText:
    """One pipeline folder's tokenizers and text encoders."""

    def __init__(self, model: str, revision: str | None, compute_dtype: str, device: torch.device) -> None:
        self.model, self.revision = model, revision
        self.compute_dtype, self.device = compute_dtype, device
        self._pipe: Any = None
        self._tokenizer: Any = None

    def folder(self, needed: Sequence[str] = PIPELINE_CONFIG) -> Path:
        """Where the pipeline's files are, the needed ones at least."""
        return locate(self.model, self.revision, needed=needed).folder

    def index(self) -> dict[str, Any]:
        """model_index.json.

        Raises: FileNotFoundError without that file; ValueError for a family of pipelines not supported.
        """
        file = self.folder() / "model_index.json"
        if not file.is_file():
            raise FileNotFoundError(f"{file.parent} is no diffusers pipeline folder: it has no model_index.json")
        index = json.loads(file.read_text())
        kind = str(index.get("_class_name", ""))
        if not kind.startswith(FAMILIES) or kind.startswith(OTHER_FAMILIES):
            raise ValueError(
                f"the text encoders of {kind or 'this pipeline'} are not supported; "
                "StableDiffusion and StableDiffusionXL pipelines are"
            )
        return index

    @property
    def is_xl(self) -> bool:
        """Whether the pipeline feeds pooled states beside the tokens' states."""
        return self.index()["_class_name"].startswith("StableDiffusionXL")

    def parts(self, kind: str) -> list[str]:
        """Folders of the pipeline's text encoders (kind "text_encoder") or tokenizers ("tokenizer")."""
        index = self.index()
        return [name for name in (kind, f"{kind}_2") if index.get(name, [None])[0] is not None]

    def sizes(self) -> tuple[int, int, int | None]:
        """Tokens a prompt, width of the states, width of the pooled states (None for SD); from configs."""
        configs = [_read(self.folder() / part / "config.json") for part in self.parts("text_encoder")]
        dim = sum(config["hidden_size"] for config in configs)
        pooled = configs[-1]["projection_dim"] if self.is_xl else None
        tokenizer = self.folder() / self.parts("tokenizer")[0] / "tokenizer_config.json"
        tokens = _read(tokenizer).get("model_max_length", 0) if tokenizer.is_file() else 0
        if not 0 < tokens < 10_000:  # transformers writes 1e30 for "no limit"
            tokens = configs[0]["max_position_embeddings"]
        return tokens, dim, pooled

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of each text encoder and tokenizer, by folder name."""
        folder = self.folder(TEXT_WEIGHTS)
        made = {part: weights_fingerprint(folder / part) for part in self.parts("text_encoder")}
        return made | {part: tokenizer_fingerprint(folder / part) for part in self.parts("tokenizer")}

    @torch.inference_mode()
    def encode(
        self, prompts: Sequence[str]
    ) -> tuple[Float[Tensor, "batch tokens dim"], Float[Tensor, "batch dim"] | None]:
        """The states, and for SDXL the pooled states, that the pipeline would give its denoiser."""
        pipe = self.loaded()
        with quiet_libraries():
            out = pipe.encode_prompt(
                prompt=list(prompts),
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        return out[0], out[2] if self.is_xl else None

    def lengths(self, prompts: Sequence[str]) -> Int[Tensor, "batch"]:
        """Tokens of each prompt before any cut, BOS and EOS included; loads no weights.

        Raises: OSError or ValueError when the pipeline has no usable tokenizer.
        """
        if self._tokenizer is None:
            import transformers

            part = self.parts("tokenizer")[0]
            kind = getattr(transformers, self.index()[part][1])
            with quiet_libraries():
                self._tokenizer = kind.from_pretrained(self.folder(TEXT_WEIGHTS) / part, local_files_only=True)
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


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"the pipeline lacks {file}; the download is incomplete")
    return json.loads(file.read_text())
