"""Narratives of pictures by a caption model: BLIP, BLIP-2, GIT, or any image-text-to-text model of transformers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from sur.config.curation import ASKED, CaptionConfig, GenerationConfig
from sur.config.features import slug
from sur.data.curation.writers.generation import batch_seed, generate_texts, written
from sur.data.curation.writers.text_log import Written
from sur.models.fingerprint import tokenizer_fingerprint, weights_fingerprint
from sur.models.libraries import free_memory, major_version, pick_device, quiet_libraries
from sur.models.locate import LLM_WEIGHTS, locate
from sur.support.errors import ConfigError

CAPTIONER_VERSION = 1


class Captioner:
    """A caption model; its weights load with the first picture."""

    def __init__(self, config: CaptionConfig) -> None:
        self.config = config
        self._folder = locate(config.model, config.revision, needed=LLM_WEIGHTS).folder
        self._model: Any = None
        self._processor: Any = None

    def identity(self) -> dict[str, Any]:
        """Everything besides the picture that a caption depends on; loads no weights."""
        config = self.config
        return {
            "task": "caption",
            "model": slug(config.model),
            "weights": weights_fingerprint(self._folder),
            "tokenizer": tokenizer_fingerprint(self._folder),
            "instruction": config.instruction,
            "generation": GenerationConfig.model_validate(
                config.model_dump(include=set(GenerationConfig.model_fields))
            ).model_dump(),
            "compute_dtype": config.compute_dtype,
            "engine": f"transformers {major_version('transformers')}",
            "version": CAPTIONER_VERSION,
        }

    def write(self, pictures: Sequence[Image.Image], inputs: Sequence[str]) -> list[Written]:
        """A caption of each picture; `inputs` name them, for the seed."""
        if self._model is None:
            self._model, self._processor = self._load()
        model, processor = self._model, self._processor
        given = {
            name: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
            for name, value in self._inputs(pictures).items()
            if isinstance(value, torch.Tensor)
        }
        seed = batch_seed(self.config, inputs)
        tokenizer = processor.tokenizer
        generated = generate_texts(model, given, self.config, _ends(model, tokenizer), tokenizer.pad_token_id, seed)
        return written(tokenizer, generated, seed, "" if processor.chat_template else self.config.instruction or "")

    def close(self) -> None:
        """Forget the weights."""
        self._model = self._processor = None
        free_memory()

    def _inputs(self, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        processor, asked = self._processor, self.config.instruction
        if processor.chat_template:
            messages = [
                [
                    {
                        "role": "user",
                        "content": [{"type": "image", "image": picture}, {"type": "text", "text": asked or ASKED}],
                    }
                ]
                for picture in pictures
            ]
            options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
            options_of_processor = {"padding": True, "return_tensors": "pt"}
            return dict(processor.apply_chat_template(messages, processor_kwargs=options_of_processor, **options))
        if asked is None:
            return dict(processor(images=list(pictures), return_tensors="pt"))
        return dict(processor(images=list(pictures), text=[asked] * len(pictures), return_tensors="pt"))

    def _load(self) -> tuple[Any, Any]:
        """The model and its processor."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        config, folder = self.config, self._folder
        try:
            with quiet_libraries(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
                processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
                loaded: Any = AutoModelForImageTextToText.from_pretrained(
                    folder,
                    use_safetensors=True,
                    trust_remote_code=False,
                    dtype=getattr(torch, config.compute_dtype),
                    output_loading_info=True,
                )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"captions.model {config.model!r} could not be loaded: {error}\nGive the folder or hub id of a model "
                "for image-text-to-text with safetensors weights, such as Salesforce/blip-image-captioning-base"
            ) from error
        model, report = loaded
        if report["missing_keys"]:
            raise ConfigError(
                f"captions.model {config.model!r} lacks weights of {type(model).__name__}: "
                f"{sorted(report['missing_keys'])[:3]}; its captions would be random. Give a complete caption model"
            )
        if model.config.model_type == "git" and config.instruction is not None:
            raise ConfigError("captions.instruction: GIT models take none; set it to null")
        processor.tokenizer.padding_side = "left"
        return model.eval().requires_grad_(False).to(pick_device(config.device)), processor


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a text, collected from the model's files and its tokenizer."""
    text = model.config.get_text_config(decoder=True)
    named_ends = [model.generation_config.eos_token_id, getattr(text, "eos_token_id", None), tokenizer.eos_token_id]
    if model.config.model_type == "blip":
        named_ends = [text.sep_token_id]
    ends = [token for entry in named_ends for token in (entry if isinstance(entry, (list, tuple)) else [entry])]
    return sorted({token for token in ends if token is not None})
