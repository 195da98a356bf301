"""The authors' adapter, bug for bug (SUR_adapter.py of their repository at 5d97aa3).

    h   = TransformerEncoder_2(x)                        attends across the batch, never across tokens
    a   = softmax(Wq h (Wk x)^T / sqrt(dim)) x + x
    a   = MLP(a) + a
    s   = W a + b                                        W starts at zero, b does not
    out = weight * s + (1 - weight) * x

Parameters have the names of their file, and those that they never use are here too: a spare encoder layer (from
which the others are copied) and a value projection.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from sur.adapter.base import AdapterOutput, BaseAdapter
from sur.config.adapter import ReleasedAdapterConfig
from sur.support.errors import ConfigError

HEADS, FEED_FORWARD = 8, 2048


class ReleasedAdapter(BaseAdapter):
    """The released variant, of which a row's result depends on the other rows of its batch.

    `weight` is the dial of inference (0 = off, 1 = as trained); that of their formula is `config.weight`.
    Raises ConfigError for a width that its attention heads do not divide.
    """

    variant: ClassVar[str] = "released"
    config_class = ReleasedAdapterConfig
    config: ReleasedAdapterConfig

    def __init__(
        self, config: ReleasedAdapterConfig, weight: float = 1.0, trained_on: dict[str, Any] | None = None
    ) -> None:
        if config.dim < 1 or config.dim % HEADS:
            raise ConfigError(
                f"the released adapter needs states a positive multiple of {HEADS} wide, got {config.dim}"
            )
        super().__init__(config, weight, trained_on)
        self.encoder_layer = nn.TransformerEncoderLayer(config.dim, HEADS, FEED_FORWARD, config.dropout)
        self.transformer_encoder = nn.TransformerEncoder(self.encoder_layer, config.layers, enable_nested_tensor=False)
        self.attention = _Attention(config.dim)
        self.fc = nn.Linear(config.dim, config.dim)
        nn.init.zeros_(self.fc.weight)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        weight: float | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
    ) -> AdapterOutput:
        """Adapt states; `x` in the adapter's own dtype. `weight` stands in for the adapter's own dial.

        Raises ValueError when the width is not the one that the adapter was built for, or for a mask.
        """
        if mask is not None:
            raise ValueError("the released adapter knows no mask; for PixArt train the corrected one")
        self.check_width(x)
        hidden = self.transformer_encoder(x)
        share = self.config.weight * (self.weight if weight is None else weight)
        return AdapterOutput(share * self.fc(self.attention(hidden, x)) + (1 - share) * x, hidden)


class _Attention(nn.Module):
    """Reads `x` where `hidden` asks, then a small MLP, each added to what it reads."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_layer = nn.Linear(dim, dim)
        self.key_layer = nn.Linear(dim, dim)
        self.value_layer = nn.Linear(dim, dim)  # never used
        self.output_layer = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        scores = self.query_layer(hidden) @ self.key_layer(x).mT / math.sqrt(x.shape[-1])
        read = scores.softmax(-1) @ x + x
        return self.output_layer(read) + read
