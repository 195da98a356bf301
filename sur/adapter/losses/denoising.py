"""Losses that run the frozen denoiser: the diffusion loss, and alignment of its predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sur.config.losses import DenoisingConfig
from sur.models.denoiser import FrozenDenoiser, Noised, Text
from sur.support.errors import ConfigError


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
    if denoiser.prediction == "v_prediction":
        return noised.snr.clamp(max=gamma) / (noised.snr + 1)
    return (gamma / noised.snr).clamp(max=1)  # written so that pure noise, of ratio 0, has a weight


def denoiser_alignment(denoiser: FrozenDenoiser, noised: Noised, text: Text, target: Text) -> Float[Tensor, ""]:
    """Mean square distance of the predictions under `text` and under the complex prompt's `target`."""
    if len(text.states) == 0:
        return text.states.sum()
    with torch.no_grad():
        wanted = denoiser(noised, target)
    return F.mse_loss(denoiser(noised, text), wanted)
