"""The denoiser's read-out: cross-attention layers reduced to sampled queries, to_k and to_v."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
