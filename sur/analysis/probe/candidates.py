"""The candidates that are compared: every cached layer of every LLM, by every pooling that can be made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sur.adapter.losses.measures import real_tokens
from sur.cache import Store
from sur.support.errors import ConfigError

VectorPooling = Literal["mean", "last"]


@dataclass(frozen=True)
class LayerCandidate:
    """One vector a prompt, of one layer of an LLM.

    stored: the pooling with which the feature was cached. pooling: the pooling of the vector.
    """

    feature: str
    model: str
    layer: int
    stored: str
    pooling: VectorPooling

    @property
    def name(self) -> str:
        """The name in tables, such as "smollm2-135m layer 22 mean"; two candidates may share one, see `names_of`."""
        return f"{self.model} layer {self.layer} {self.pooling}"


def candidates_of(store: Store) -> list[LayerCandidate]:
    """All candidates of a store, by model, layer and feature; token states give two, their mean and their last token.

    Raises: ConfigError when the store has no LLM's features.
    """
    candidates = []
    for name, spec in store.features().items():
        if spec.kind == "llm":
            model, layer, stored = (spec.identity[key] for key in ("model", "layer", "pooling"))
            poolings: tuple[VectorPooling, ...] = ("mean", "last") if stored == "tokens" else (stored,)
            candidates += [LayerCandidate(name, str(model), int(layer), str(stored), p) for p in poolings]
    if not candidates:
        raise ConfigError(
            f"{store.path} has no features of an LLM to compare; add an `llm` section with some layers to the config "
            "and run `sur extract`"
        )
    return sorted(candidates, key=lambda c: (c.model, c.layer, c.feature, c.pooling != "mean"))


def names_of(candidates: Sequence[LayerCandidate]) -> list[str]:
    """A name of its own for each candidate: with the feature where a layer was cached with several poolings."""
    counts = Counter(candidate.name for candidate in candidates)
    return [c.name if counts[c.name] == 1 else f"{c.name} of {c.feature}" for c in candidates]


def pool_tokens(
    states: Float[Tensor, "batch ..."], length: Int[Tensor, " batch"], pooling: VectorPooling
) -> Float[Tensor, "batch dim"]:
    """The mean over the real tokens, or the last of them, float32; states that are pooled already stay as they are.

    Token states are layer-normalised one by one first, as the teacher does it: the first token of many LLMs is far
    longer than the others (Sun et al. 2024, arXiv 2402.17762) and would be most of the mean.
    """
    states = states.float()
    if states.ndim == 2:
        return states
    states, length = torch.nn.functional.layer_norm(states, states.shape[-1:]), length.long().clamp_min(1)
    if pooling == "last":
        return states[torch.arange(len(states)), length - 1]
    weights = real_tokens(length, states.shape[1]).float()
    return torch.einsum("btd,bt->bd", states, weights) / length[:, None]
