"""The LLM run in this process by transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sur.config.features import LLMConfig
from sur.features.encoders.llm.engine import Pooled, padded
from sur.features.encoders.llm.layers import LayeredModel
from sur.models.libraries import free_memory, major_version, pick_device
from sur.models.prompt_tokens import Tokens, batches_by_length


class HFEngine:
    """Batches of prompts of similar length through a model cut off above the highest layer asked for."""

    def __init__(self, config: LLMConfig, load_body: Callable[[], Any]) -> None:
        self.config = config
        self._load_body = load_body
        self._model: LayeredModel | None = None

    def identity(self) -> dict[str, str]:
        """The library's major version: what a new one of may change numbers."""
        return {"engine": "transformers", "engine_version": major_version("transformers")}

    def pooled(self, prompts: Sequence[Tokens], layers: Sequence[int], weights: str) -> Iterator[Pooled]:
        """States in float32; batches are a pure function of the prompts' lengths."""
        if not prompts:
            return
        if self._model is None:
            self._model = LayeredModel(self._load_body(), self.config.layers, pick_device(self.config.device))
        for batch in batches_by_length([len(tokens.ids) for tokens in prompts], self.config.tokens_per_batch):
            tokens = [prompts[item] for item in batch]
            yield Pooled(batch, self._run(self._model, tokens, layers), len(batch) * len(tokens[0].ids))

    def close(self) -> None:
        """Forget the weights."""
        self._model = None
        free_memory()

    def _run(self, model: LayeredModel, tokens: list[Tokens], layers: Sequence[int]) -> dict[int, Tensor]:
        """Pooled states of one batch, its longest prompt first."""
        device = next(model.model.parameters()).device
        ids = torch.zeros(len(tokens), len(tokens[0].ids), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(tokens):
            ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
            mask[row, : len(prompt.ids)] = 1
        hidden = model.states(ids.to(device), mask.to(device), layers)
        return {layer: self._pool(states, tokens) for layer, states in hidden.items()}

    def _pool(self, states: Tensor, tokens: list[Tokens]) -> Tensor:
        if self.config.pooling == "last":
            return torch.stack([states[row, len(prompt.ids) - 1] for row, prompt in enumerate(tokens)]).float()
        own = [states[row, prompt.start : prompt.stop].float() for row, prompt in enumerate(tokens)]
        if self.config.pooling == "mean":
            return torch.stack([each.mean(dim=0) for each in own])
        return padded(own, self.config.max_tokens)
