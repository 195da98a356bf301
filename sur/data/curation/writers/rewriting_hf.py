"""The LLM that rewrites, run in this process by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sur.config.curation import RewriteConfig
from sur.data.curation.writers.generation import batch_seed, generate_texts, written
from sur.data.curation.writers.text_log import Written
from sur.models.gguf import parsed_once
from sur.models.libraries import free_memory, major_version, pick_device, quiet_libraries
from sur.models.locate import Located
from sur.support.errors import ConfigError


class HFGenerator:
    """One batch at a time, padded on the left."""

    def __init__(self, config: RewriteConfig, located: Located) -> None:
        self.config, self._found = config, located
        self._model: Any = None

    def identity(self) -> dict[str, str]:
        """The library's major version, because a new major version may change numbers, and with them words."""
        return {"engine": f"transformers {major_version('transformers')}"}

    def write(self, prompts: Sequence[list[int]], inputs: Sequence[str], tokenizer: Any) -> list[Written]:
        """A text for each prompt."""
        if self._model is None:
            self._model = self._load()
        model = self._model
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(prompts):
            ids[row, longest - len(tokens) :] = torch.tensor(tokens)
            mask[row, longest - len(tokens) :] = 1
        given = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
        seed = batch_seed(self.config, inputs)
        generated = generate_texts(model, given, self.config, _ends(model, tokenizer), tokenizer.pad_token_id, seed)
        return written(tokenizer, generated, seed)

    def close(self) -> None:
        """Forget the weights."""
        self._model = None
        free_memory()

    def _load(self) -> Any:
        from transformers import AutoModelForCausalLM

        config, located = self.config, self._found
        safe = {} if located.gguf_file else {"use_safetensors": True}
        with parsed_once(located.gguf_file), quiet_libraries():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                located.folder,
                gguf_file=located.gguf_file,
                trust_remote_code=config.trust_remote_code,
                local_files_only=True,
                dtype=getattr(torch, config.compute_dtype),
                output_loading_info=True,
                **safe,
            )
        model, report = loaded
        if report["missing_keys"]:
            raise ConfigError(
                f"rewriting.model {config.model!r} lacks weights of {type(model).__name__}: "
                f"{sorted(report['missing_keys'])[:3]}; its words would be random. Give a complete language model"
            )
        return model.eval().requires_grad_(False).to(pick_device(config.device))


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a text."""
    named_ends = model.generation_config.eos_token_id
    ends = [*(named_ends if isinstance(named_ends, (list, tuple)) else [named_ends]), tokenizer.eos_token_id]
    return sorted({token for token in ends if token is not None})
