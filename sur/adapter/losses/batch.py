"""A batch of rows as the losses read it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RowBatch:
    """Features of one batch of rows, float32 on the training device. `paired` rows have a complex prompt."""

    simple: Tensor  # (batch, tokens, dim)
    length: Tensor  # (batch,) real tokens of `simple`, with start and end mark
    pooled: Tensor | None = None  # (batch, pooled_dim), where the pipeline has them; the adapter leaves them alone
    mask: Tensor | None = None  # (batch, tokens) bool, where the denoiser does not read all tokens
    complex: Tensor | None = None  # (batch, tokens, dim)
    complex_pooled: Tensor | None = None
    complex_mask: Tensor | None = None
    paired: Tensor | None = None  # (batch,) bool
    llm: Tensor | None = None  # (batch, llm_dim) or (batch, llm_tokens, llm_dim)
    llm_length: Tensor | None = None  # (batch,)
    also: tuple[Tensor, ...] = ()  # as `llm`, of each further target
    also_length: tuple[Tensor, ...] = ()
    latents: tuple[Tensor, Tensor] | None = None  # mean and log-variance, each (batch, c, h, w)
    pictured: Tensor | None = None  # (batch,) bool: has latents
    seeds: Tensor | None = None  # (batch,) int64: of each row's noise and timestep
