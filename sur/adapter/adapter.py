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

import json
import math
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sur.adapter.hub import adapter_folder
from sur.config.adapter import AdapterConfig
from sur.support.errors import ConfigError

FORMAT_VERSION = 1
SMALLEST_VARIANCE = 1e-4  # of the largest; smaller ones are not blown up
_WEIGHTS, _CONFIG = "adapter.safetensors", "config.json"


class AdapterOutput(NamedTuple):
    """States for the denoiser, and the hidden states that distillation looks at; both (batch, tokens, dim)."""

    states: Tensor
    hidden: Tensor


class Adapter(nn.Module):
    """Maps text-encoder states of a narrative prompt to states that the denoiser understands.

    Every parameter takes part in `states`. Each row's result depends on that row alone.
    """

    variant: ClassVar[Literal["corrected", "released"]] = "corrected"

    def __init__(self, config: AdapterConfig, weight: float = 1.0, trained_on: dict | None = None) -> None:
        super().__init__()
        if config.dim < 1 or config.dim % config.heads:
            raise ConfigError(
                f"adapter.dim must be a positive multiple of adapter.heads, got {config.dim} and {config.heads}"
            )
        self.config = config
        self.weight = weight
        self.trained_on = trained_on or {}
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
        if x.shape[-1] != self.config.dim:
            raise ValueError(
                f"the adapter is built for states {self.config.dim} wide, got {x.shape[-1]}; "
                "it belongs to another text encoder"
            )
        normal = self.normalise(x)
        hidden = self.encoder(normal, src_key_padding_mask=None if mask is None else ~mask)
        scores = self.query(hidden) @ self.key(normal).mT / math.sqrt(self.config.dim)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -math.inf)
        a = scores.softmax(-1) @ x + x
        a = self.mlp(a) + a
        weight = self.weight if weight is None else weight
        return AdapterOutput(x + weight * (self.output(a) + self.hidden_output(hidden)), hidden)

    @property
    def t5_tokens(self) -> int | None:
        """States that T5 made of a prompt in training; None where that is the pipeline's own number, or no T5."""
        return self.trained_on.get("text", {}).get("t5_tokens")

    def attach(self, pipe, weight: float | None = None):
        """Put the adapter on an unmodified diffusers pipeline; see `sur.attach`. Returns the pipeline."""
        from sur.adapter.attach import attach

        return attach(self, pipe, weight)

    def detach(self, pipe):
        """Take the adapter off again; the pipeline is as before. Returns the pipeline."""
        from sur.adapter.attach import detach

        return detach(pipe)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json and adapter.safetensors into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, folder / _WEIGHTS)
        content = {
            "format_version": FORMAT_VERSION,
            "adapter": self.config.model_dump(),
            "weight": self.weight,
            "trained_on": self.trained_on,
        }
        if self.variant != "corrected":  # corrected ones are as they were before there were variants
            content["variant"] = self.variant
        (folder / _CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        return folder

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> Adapter:
        """Load an adapter of the variant that a folder or hub repository holds, ready for inference (no gradients).

        Raises FileNotFoundError when there is none, ValueError when it is from a newer version.
        """
        folder = adapter_folder(name, revision)
        content = saved_settings(folder)
        if content.get("variant") == "released":
            from sur.adapter.released.adapter import ReleasedAdapter, ReleasedAdapterConfig

            config = ReleasedAdapterConfig(**content["adapter"])
            adapter = ReleasedAdapter(config, content["weight"], content["trained_on"])
        else:
            adapter = Adapter(AdapterConfig(**content["adapter"]), content["weight"], content["trained_on"])
        adapter.load_state_dict(load_file(folder / _WEIGHTS))
        return adapter.eval().requires_grad_(False)


def saved_settings(folder: Path) -> dict[str, Any]:
    """An adapter's config.json: `adapter`, `weight`, `trained_on`, and `variant` where it is not the corrected one.

    Raises ValueError when it is from a newer version.
    """
    content = json.loads((folder / _CONFIG).read_text())
    if content.get("format_version", 0) > FORMAT_VERSION:
        raise ValueError(
            f"{folder} has adapter format {content['format_version']}, this version reads up to {FORMAT_VERSION}; "
            "upgrade the package"
        )
    return content
