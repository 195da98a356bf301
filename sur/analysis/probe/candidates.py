"""What is compared: every cached layer of every LLM, by every pooling that can be made of it."""

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

Pooling = Literal["mean", "last"]


@dataclass(frozen=True)
class Candidate:
    """One vector a prompt. `stored`: how the feature was pooled when it was cached; `pooling`: how it is here."""

    feature: str
    model: str
    layer: int
    stored: str
    pooling: Pooling

    @property
    def name(self) -> str:
        """Shown in tables, such as "smollm2-135m layer 22 mean"; not its own, see `names_of`."""
        return f"{self.model} layer {self.layer} {self.pooling}"


def candidates_of(store: Store) -> list[Candidate]:
    """All candidates of a store, by model, layer and feature; token states give two, their mean and their last token.

    Raises ConfigError when the store has no LLM's features.
    """
    found = []
    for name, spec in store.features().items():
        if spec.kind == "llm":
            identity = spec.identity
            stored = str(identity["pooling"])
            poolings: tuple[Pooling, ...] = ("mean", "last") if stored == "tokens" else (stored,)  # pyright: ignore
            found += [Candidate(name, str(identity["model"]), int(identity["layer"]), stored, p) for p in poolings]
    if not found:
        raise ConfigError(
            f"{store.path} has no features of an LLM to compare; add an `llm` section with some layers to the config "
            "and run `sur extract`"
        )
    return sorted(found, key=lambda each: (each.model, each.layer, each.feature, each.pooling != "mean"))


def names_of(candidates: Sequence[Candidate]) -> list[str]:
    """A name for each, its own: with the feature where a layer was cached by several poolings."""
    shared = Counter(each.name for each in candidates)
    return [each.name if shared[each.name] == 1 else f"{each.name} of {each.feature}" for each in candidates]


def pool(
    states: Float[Tensor, "batch ..."], length: Int[Tensor, " batch"], pooling: Pooling
) -> Float[Tensor, "batch dim"]:
    """Mean over the real tokens, or the last of them; what is pooled already stays as it is. float32.

    Token states are normalised one by one first, as the teacher does it: the first token of many LLMs is far longer
    than the others (Sun et al. 2024, arXiv 2402.17762) and would be most of the mean.
    """
    states = states.float()
    if states.ndim == 2:
        return states
    states, length = torch.nn.functional.layer_norm(states, states.shape[-1:]), length.long().clamp_min(1)
    if pooling == "last":
        return states[torch.arange(len(states)), length - 1]
    weights = real_tokens(length, states.shape[1]).float()
    return torch.einsum("btd,bt->bd", states, weights) / length[:, None]
