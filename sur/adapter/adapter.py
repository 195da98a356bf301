"""The SUR-adapter: a small module on the frozen text encoder's states (arXiv 2305.05189, corrected).

    n   = LayerNorm(whitened x)
    h   = TransformerEncoder_2(n)                       attends across tokens
    a   = softmax(Wq h (Wk n)^T / sqrt d) x + x
    a   = MLP(a) + a
    s   = W a + V h                                     W and V start at zero
    out = x + weight * s                                so step 0 is the untouched model

V is ours: without it `h` could only steer where attention looks, and what it learns would not reach the denoiser.
`x` are the text encoder's states of the simple prompt, (batch, tokens, dim), padding states included, as the
denoiser reads them. `h` is what distillation looks at. What differs from the authors' script, and what
that does, is in docs/released.md.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sur.adapter.base import CORRECTED, AdapterOutput, BaseAdapter
from sur.config.adapter import AdapterConfig
from sur.support.errors import ConfigError

SMALLEST_VARIANCE = 1e-4  # of the largest; smaller ones are not blown up


class Adapter(BaseAdapter):
    """The corrected variant: every parameter takes part in `states`, and each row's result depends on that row alone.

    Raises ConfigError for a width that its attention heads do not divide.
    """

    variant: ClassVar[str] = CORRECTED
    config_class = AdapterConfig
    config: AdapterConfig

    def __init__(self, config: AdapterConfig, weight: float = 1.0, trained_on: dict[str, Any] | None = None) -> None:
        if config.dim < 1 or config.dim % config.heads:
            raise ConfigError(
                f"adapter.dim must be a positive multiple of adapter.heads, got {config.dim} and {config.heads}"
            )
        super().__init__(config, weight, trained_on)
        dim, inner = config.dim, int(config.dim * config.mlp_ratio)
        layer = nn.TransformerEncoderLayer(
            dim, config.heads, inner, config.dropout, F.gelu, batch_first=True, norm_first=True
        )
        self.normalise = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.encoder = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))
        self.output = nn.Linear(dim, dim)
        self.hidden_output = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.normalise[0].weight)  # pyright: ignore[reportArgumentType]
        for parameter in (self.normalise[0].bias, *self.output.parameters(), *self.hidden_output.parameters()):
            nn.init.zeros_(parameter)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def whiten(self, states: Float[Tensor, "n dim"]) -> None:
        """Start from inputs with equal variance in all directions, as found in a sample of states (ZCA).

        What sets rarer words apart lies in directions of small variance, which gradient descent would reach last.
        """
        mean = states.mean(0)
        variances, directions = torch.linalg.eigh(torch.cov((states - mean).T))
        scale = (variances.clamp_min(0) + SMALLEST_VARIANCE * variances.max()).rsqrt()
        linear: nn.Linear = self.normalise[0]  # pyright: ignore[reportAssignmentType]
        linear.weight.copy_(directions * scale @ directions.T)
        linear.bias.copy_(-linear.weight @ mean)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        weight: float | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> AdapterOutput:
        """Adapt states; `x` in the adapter's own dtype. `weight` stands in for the adapter's own.

        mask: tokens that the denoiser reads, where it does not read them all; the others are not attended to.

        Raises ValueError when the width is not the one that the adapter was built for.
        """
        self.check_width(x)
        normal = self.normalise(x)
        hidden = self.encoder(normal, src_key_padding_mask=None if mask is None else ~mask)
        scores = self.query(hidden) @ self.key(normal).mT / math.sqrt(self.config.dim)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -math.inf)
        a = scores.softmax(-1) @ x + x
        a = self.mlp(a) + a
        weight = self.weight if weight is None else weight
        return AdapterOutput(x + weight * (self.output(a) + self.hidden_output(hidden)), hidden)
