"""Losses that run the frozen denoiser: the diffusion loss, and alignment of its predictions (see `sur.denoiser`)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sur.denoiser import FrozenDenoiser, Noised, Text
from sur.errors import ConfigError


class DenoisingConfig(BaseModel):
    """The usual loss of the frozen denoiser given the adapted states, and how the denoiser is run for any loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(
        default=0.0, ge=0, description="factor of this loss; 0 = off, the denoiser is not loaded for it"
    )
    first_step: int = Field(default=0, ge=0, description="step at which it sets in; steps before it cost less")
    min_snr_gamma: float = Field(
        default=0.0, ge=0, description="steps with little noise count less (5 is usual); 0 = all alike"
    )
    noise_offset: float = Field(
        default=0.0, ge=0, description="a constant added to each channel's noise (0.05 is usual)"
    )
    caption_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of rows with the empty prompt in place of theirs, for this loss alone",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the denoiser's frozen weights"
    )
    gradient_checkpointing: bool = Field(default=False, description="compute the denoiser's inside twice, keep less")
    channels_last: bool = Field(default=False, description="memory layout of a UNet that suits tensor cores")
    compile: bool = Field(default=False, description="torch.compile the denoiser; pays after some hundred steps")


def prepare_denoiser(model: str, revision: str | None, config: DenoisingConfig) -> FrozenDenoiser:
    """Load a pipeline's denoiser as the config says.

    Raises ConfigError for a min-SNR weight of a flow.
    """
    denoiser = FrozenDenoiser.from_pipeline(model, revision, getattr(torch, config.dtype))
    if config.min_snr_gamma and denoiser.prediction == "flow":
        raise ConfigError("loss.denoising.min_snr_gamma is for epsilon and v prediction; set it to 0 for a flow")
    if config.gradient_checkpointing:
        denoiser.model.enable_gradient_checkpointing()
    if config.channels_last:
        denoiser.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.compile:
        denoiser.model.compile()
    return denoiser


def denoising_loss(
    denoiser: FrozenDenoiser, noised: Noised, text: Text, min_snr_gamma: float = 0.0
) -> Float[Tensor, ""]:
    """Mean square error of the prediction under `text` (Ho et al. 2020, eq. 14; flows: Esser et al. 2024, eq. 14).

    min_snr_gamma: weight min(snr, gamma) / snr for epsilon, over snr + 1 for v (Hang et al. 2023); 0 = none.
    """
    errors = F.mse_loss(denoiser(noised, text), denoiser.target(noised).float(), reduction="none").flatten(1).mean(1)
    return (errors * snr_weight(denoiser, noised, min_snr_gamma)).mean() if min_snr_gamma else errors.mean()


def snr_weight(denoiser: FrozenDenoiser, noised: Noised, gamma: float) -> Float[Tensor, " batch"]:
    """min(snr, gamma) / snr, or over snr + 1 for v prediction."""
    assert noised.snr is not None  # flows are refused with the config
    return noised.snr.clamp(max=gamma) / (noised.snr + (denoiser.prediction == "v_prediction"))


def denoiser_alignment(denoiser: FrozenDenoiser, noised: Noised, text: Text, target: Text) -> Float[Tensor, ""]:
    """Mean square distance of the predictions under `text` and under the complex prompt's `target`."""
    if len(text.states) == 0:
        return text.states.sum()
    with torch.no_grad():
        wanted = denoiser(noised, target)
    return F.mse_loss(denoiser(noised, text), wanted)
