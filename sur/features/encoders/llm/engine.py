"""What runs the LLM behind `LLMEncoder`: prompts of token ids in, pooled hidden states out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sur.models.prompt_tokens import Tokens


@dataclass(frozen=True)
class Pooled:
    """Some of the prompts, by their place in the call.

    states: layer -> (prompts, dim), or (prompts, max_tokens, dim) padded with zeros, float32 or the stored dtype.
    computed_tokens: tokens that the model computed for them, padding included.
    """

    items: list[int]
    states: Mapping[int, Tensor]
    computed_tokens: int


class Engine(Protocol):
    """One LLM ready to run; weights are loaded, or a server is met, on the first `pooled`."""

    def identity(self) -> dict[str, str]:
        """Engine and version, as they enter a feature's identity; loads no weights."""
        ...

    def pooled(self, prompts: Sequence[Tokens], layers: Sequence[int], weights: str) -> Iterator[Pooled]:
        """States of every prompt once, in any order; `weights` is the fingerprint that the features carry."""
        ...

    def close(self) -> None:
        """Let weights or server go."""
        ...


def padded(states: Sequence[Tensor], max_tokens: int) -> Tensor:
    """Token states of several prompts, each (tokens, dim), padded with zeros: (prompts, max_tokens, dim)."""
    joined = states[0].new_zeros(len(states), max_tokens, states[0].shape[-1])
    for row, state in enumerate(states):
        joined[row, : len(state)] = state
    return joined
