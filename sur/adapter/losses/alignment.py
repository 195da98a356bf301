"""Alignment: adapted states of the narrative prompt carry what the complex prompt's states say.

`tokens` compares state by state (the paper). `attention` compares what the denoiser's cross-attention reads out
of them, which depends neither on the order nor on the number of tokens. `denoiser` compares the frozen
denoiser's predictions (`sur.adapter.losses.denoising`).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sur.adapter.losses.measures import mean_distance
from sur.config.losses import AlignmentConfig
from sur.models.readout import ReadOut


def attention_alignment(
    read_out: ReadOut,
    states: Float[Tensor, "batch tokens dim"],
    target: Float[Tensor, "batch target_tokens dim"],
    queries: int,
) -> Float[Tensor, ""]:
    """Mean over layers of |read-out(states) - read-out(target)|^2 relative to the target read-out's variance.

    The variance is that of each channel over rows and queries, averaged over a layer's channels.
    Gradient flows into `target` too; detach it where it must not.
    """
    if len(states) == 0:
        return states.sum()
    picks = read_out.pick(queries)
    losses = []
    for got, wanted in zip(read_out(states, picks), read_out(target, picks), strict=True):
        got, wanted = got.float(), wanted.float()  # small differences vanish in half precision
        variance = wanted.detach().transpose(1, 2).flatten(0, 1).var(0, correction=0).mean().clamp_min(1e-8)
        losses.append((got - wanted).square().mean() / variance)
    return torch.stack(losses).mean()


def token_alignment(
    config: AlignmentConfig,
    states: Float[Tensor, "batch tokens dim"],
    target: Float[Tensor, "batch tokens dim"],
    both: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, ""]:
    """The paper's form: the n-th state against the n-th, over all tokens that the denoiser reads in `both` prompts."""
    if both is not None:
        return mean_distance(config.measure, states[both], target[both], config.temperature)
    return mean_distance(config.measure, states.flatten(0, 1), target.flatten(0, 1), config.temperature)
