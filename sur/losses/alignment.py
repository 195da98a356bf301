"""Alignment: adapted states of the narrative prompt carry what the complex prompt's states say.

`tokens` compares state by state (the paper). `attention` compares what the denoiser's cross-attention reads out
of them, which depends neither on the order nor on the number of tokens. `denoiser` compares the frozen
denoiser's predictions (`sur.losses.denoising`).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sur.losses.measures import Measure, distance


class AlignmentConfig(BaseModel):
    """How adapted states are held against the complex prompt's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["attention", "tokens", "denoiser", "none"] = Field(
        default="attention", description="see DESIGN, the method"
    )
    weight: float = Field(default=1.0, ge=0, description="factor of this loss")
    measure: Measure = Field(default="mse", description="distance of form `tokens`")
    temperature: float = Field(default=1.0, gt=0, description="of kl and contrastive")
    queries_per_step: int = Field(default=64, ge=1, description="queries of each layer drawn a step, form `attention`")


class ReadOut(nn.Module):
    """Cross-attention layers of the frozen denoiser, reduced to their real queries, to_k and to_v.

    queries: a layer each, (n, heads * head_dim). to_k, to_v: (heads * head_dim, dim). Frozen; no parameters.
    """

    def __init__(self, queries: list[Tensor], to_k: list[Tensor], to_v: list[Tensor], heads: list[int]) -> None:
        super().__init__()
        self.heads = heads
        for i, (q, k, v) in enumerate(zip(queries, to_k, to_v, strict=True)):
            for name, tensor in (("q", q), ("k", k), ("v", v)):
                self.register_buffer(f"{name}{i}", tensor, persistent=False)

    def forward(
        self, states: Float[Tensor, "batch tokens dim"], picks: list[Tensor]
    ) -> list[Float[Tensor, "batch heads picked head_dim"]]:
        """softmax(q K(states)^T / sqrt(head_dim)) V(states) for the picked queries of every layer."""
        results = []
        for i, (heads, pick) in enumerate(zip(self.heads, picks, strict=True)):
            q, k, v = (getattr(self, f"{name}{i}") for name in "qkv")
            query = _split(q[pick], heads)[None].expand(len(states), -1, -1, -1)
            keys, values = _split(states @ k.T, heads), _split(states @ v.T, heads)
            results.append(nn.functional.scaled_dot_product_attention(query, keys, values))
        return results

    def pick(self, n: int) -> list[Tensor]:
        """Draw `n` queries of each layer from torch's global generator."""
        sizes = [len(getattr(self, f"q{i}")) for i in range(len(self.heads))]
        return [torch.randint(size, (min(n, size),), device=self.get_buffer("q0").device) for size in sizes]


def _split(states: Float[Tensor, "*batch n inner"], heads: int) -> Float[Tensor, "*batch heads n head_dim"]:
    return states.unflatten(-1, (heads, -1)).transpose(-3, -2)


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
        return distance(config.measure, states[both], target[both], config.temperature)
    return distance(config.measure, states.flatten(0, 1), target.flatten(0, 1), config.temperature)
