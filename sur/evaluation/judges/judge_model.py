"""Loading a model that judges pictures: from safetensors, without code of its own, pictures prepared by PIL."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from sur.models.libraries import quiet_libraries
from sur.models.locate import LLM_WEIGHTS, locate
from sur.support.errors import ConfigError


@dataclass(frozen=True)
class JudgeModel:
    """A model with the tokenizer and the image processor that prepare its inputs."""

    kind: str
    model: Any
    tokenizer: Any
    processor: Any

    def pixels(self, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        """Pictures as inputs of the model."""
        inputs = self.processor(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        return dict(inputs.to(self.model.device))

    def tokens(self, texts: Sequence[str]) -> dict[str, Any]:
        """Texts as inputs of the model; texts that are too long for it are cut."""
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._longest(), return_tensors="pt"
        )
        return dict(inputs.to(self.model.device))

    def _longest(self) -> int:
        text = getattr(self.model.config, "text_config", self.model.config)
        return min(self.tokenizer.model_max_length, text.max_position_embeddings)


def load_judge_model(setting: str, model: str, revision: str | None, kinds: Mapping[str, Any]) -> JudgeModel:
    """A model of one of the `kinds` (model type -> class), on CUDA if there is one.

    Raises: ConfigError, naming `setting`, when there is no such model, or it is of another kind or lacks weights.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

    try:
        folder = locate(model, revision, needed=LLM_WEIGHTS).folder
        with quiet_libraries(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
            if kind not in kinds:
                types = " or ".join(sorted(kinds))
                raise ConfigError(f"{setting}.model {model!r} is a {kind} model; give one of type {types}")
            loaded, report = kinds[kind].from_pretrained(folder, use_safetensors=True, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{setting}.model {model!r} could not be loaded: {error}\nCorrect the folder or hub id; a hub model must "
            "be downloaded once, with HF_HUB_OFFLINE unset, and have safetensors weights"
        ) from error
    if report["missing_keys"]:
        raise ConfigError(
            f"{setting}.model {model!r} lacks weights of {kinds[kind].__name__}: {sorted(report['missing_keys'])[:3]}; "
            "its scores would be random. Give a complete model"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return JudgeModel(kind, loaded.eval().requires_grad_(False).to(device), tokenizer, processor)
