"""Settings of the adapter, by variant, and the losses that the released variant fixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from sur.config.losses import LossConfig


class AdapterConfig(BaseModel):
    """Size of the adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(default=0, ge=0, description="Width of the text encoder's states; 0 reads it from the cache.")
    layers: int = Field(default=2, ge=1, le=256, description="Number of transformer encoder layers.")
    heads: int = Field(default=4, ge=1, description="Attention heads of each encoder layer.")
    mlp_ratio: float = Field(default=4.0, gt=0, description="Hidden width of every MLP, as a multiple of dim.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout in training; there is none at inference.")


class ReleasedAdapterConfig(BaseModel):
    """Size of the released adapter. Its 8 heads and its feed-forward width of 2048 are fixed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(default=0, ge=0, description="Width of the text encoder's states; 0 reads it from the cache.")
    layers: int = Field(
        default=2, ge=1, le=256, description="Number of transformer encoder layers (the authors' `depth`)."
    )
    weight: float = Field(
        default=0.1, ge=0, le=1, description="The w of out = w s + (1 - w) x (the authors' `adapter_weight`)."
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout in training; the authors' is 0.1.")


KL = {"measure": "kl", "temperature": 1.0}
FIXED = {
    "alignment": {"form": "tokens", **KL},
    "distillation": {"form": "pooled", **KL, "projection": "frozen", "also": {}},
    "denoising": {"first_step": 0, "min_snr_gamma": 0.0, "noise_offset": 0.0},
}
WEIGHTS = {"alignment": 1e-5, "distillation": 1e-5, "denoising": 1.0}  # of the authors' run.sh


def with_released_losses(given: Any) -> Any:
    """The `loss` section, completed with the authors' values; a value that is not a section is returned as it is."""
    if given is not None and not isinstance(given, Mapping):
        return given
    sections = dict(given or {})
    for name, fixed in FIXED.items():
        section = sections.get(name)
        if section is None or isinstance(section, Mapping):
            sections[name] = {**fixed, "weight": WEIGHTS[name], **(section or {})}
    return sections


def refuse_other_losses(loss: LossConfig) -> None:
    """Raises ValueError naming every setting of `loss` that the released objective cannot have."""
    faults = [
        f"loss.{section}.{key} must be {expected}, got {value}"
        for section, settings in FIXED.items()
        for key, expected in settings.items()
        if (value := getattr(getattr(loss, section), key)) != expected
    ]
    if faults:
        raise ValueError(
            f"variant released has fixed losses: {'; '.join(faults)}. Leave these out (loss={{}} resets them all), or "
            "set variant=corrected"
        )
