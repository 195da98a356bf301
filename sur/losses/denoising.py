"""Losses that run the frozen denoiser: the diffusion loss, and alignment of its predictions.

Latents come from the cache as mean and log-variance; they are sampled, scaled and noised here, at train time.
Only the adapted states carry a gradient; the denoiser's weights are frozen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sur.encoders.locate import UNET_WEIGHTS, locate
from sur.encoders.quiet import quiet_libraries
from sur.errors import ConfigError


class DenoisingConfig(BaseModel):
    """The usual loss of the frozen denoiser given the adapted states."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(
        default=0.0, ge=0, description="factor of this loss; 0 = off, the denoiser is not loaded for it"
    )
    first_step: int = Field(default=0, ge=0, description="step at which it sets in; steps before it cost less")


class Noised(tuple[Tensor, Tensor, Tensor, Tensor]):
    """(noisy latents, noise, clean scaled latents, timesteps)."""


class FrozenDenoiser(nn.Module):
    """A pipeline folder's UNet with its training schedule. No gradient reaches its weights."""

    def __init__(self, unet: Any, schedule: Any, scaling_factor: float, shift_factor: float = 0.0) -> None:
        super().__init__()
        require_text_only(unet)
        self.unet = unet.eval().requires_grad_(False)
        self.schedule = schedule
        self.scaling_factor = scaling_factor
        self.shift_factor = shift_factor

    @classmethod
    def from_pipeline(cls, model: str, revision: str | None = None) -> FrozenDenoiser:
        """Load only the denoiser, its scheduler's config and the VAE's scaling of a pipeline (folder or hub id)."""
        from diffusers import DDPMScheduler, UNet2DConditionModel

        folder = denoiser_folder(model, revision)
        with quiet_libraries():
            schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
            unet = UNet2DConditionModel.from_pretrained(
                folder, subfolder="unet", torch_dtype=torch.float32, use_safetensors=True
            )
        return cls(unet, schedule, *_vae_scaling(folder))

    def train(self, mode: bool = True) -> FrozenDenoiser:
        """Stay in evaluation mode, whatever the objective around it is put into."""
        return super().train(False)

    def noise(
        self,
        mean: Float[Tensor, "batch c h w"],
        logvar: Float[Tensor, "batch c h w"],
        seeds: Int[Tensor, " batch"] | None = None,
    ) -> Noised:
        """Sample latents from mean and log-variance, scale them and add noise at random timesteps.

        A row's draws depend on its seed alone; without seeds they come from torch's global generator.
        """
        steps = self.schedule.config.num_train_timesteps
        if seeds is None:
            spread, noise = torch.randn_like(mean), torch.randn_like(mean)
            timesteps = torch.randint(steps, (len(mean),), device=mean.device)
        else:
            spread, noise, timesteps = (drawn.to(mean.device) for drawn in row_draws(seeds, mean.shape[1:], steps))
        sampled = mean + torch.exp(0.5 * logvar) * spread
        clean = (sampled - self.shift_factor) * self.scaling_factor
        return Noised((self.schedule.add_noise(clean, noise, timesteps), noise, clean, timesteps))

    def forward(
        self,
        noisy: Float[Tensor, "batch c h w"],
        timesteps: Int[Tensor, " batch"],
        states: Float[Tensor, "batch tokens dim"],
    ) -> Float[Tensor, "batch c h w"]:
        """The denoiser's prediction given `states`."""
        return self.unet(noisy, timesteps, states).sample

    def target(self, noised: Noised) -> Float[Tensor, "batch c h w"]:
        """What the denoiser was trained to predict: noise or velocity, as its scheduler says.

        Raises ValueError for another prediction type.
        """
        _, noise, clean, timesteps = noised
        kind = self.schedule.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return self.schedule.get_velocity(clean, noise, timesteps)
        raise ValueError(f"prediction type {kind!r} is not supported, expected epsilon or v_prediction")


def row_draws(seeds: Int[Tensor, " batch"], shape: Sequence[int], steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two normal draws of `shape` for every seed and a timestep below `steps`: (batch, *shape) twice, (batch,)."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
    normal = torch.stack([torch.randn(2, *shape, generator=each) for each in generators], dim=1)
    timesteps = torch.stack([torch.randint(steps, (), generator=each) for each in generators])
    return normal[0], normal[1], timesteps


def denoising_loss(
    denoiser: FrozenDenoiser, noised: Noised, states: Float[Tensor, "batch tokens dim"]
) -> Float[Tensor, ""]:
    """Mean square error of the prediction under `states` (Ho et al. 2020, eq. 14)."""
    noisy, _, _, timesteps = noised
    return F.mse_loss(denoiser(noisy, timesteps, states).float(), denoiser.target(noised).float())


def denoiser_alignment(
    denoiser: FrozenDenoiser,
    noised: Noised,
    states: Float[Tensor, "batch tokens dim"],
    target_states: Float[Tensor, "batch target_tokens dim"],
) -> Float[Tensor, ""]:
    """Mean square distance of the predictions under `states` and under the complex prompt's states."""
    noisy, _, _, timesteps = noised
    with torch.no_grad():
        wanted = denoiser(noisy, timesteps, target_states)
    return F.mse_loss(denoiser(noisy, timesteps, states).float(), wanted.float())


def denoiser_folder(model: str, revision: str | None = None) -> Path:
    """The pipeline's folder on this machine, with denoiser, scheduler and the VAE's config.

    Raises FileNotFoundError when there is no such model.
    """
    return locate(model, revision, needed=UNET_WEIGHTS).folder


def require_text_only(unet: Any) -> None:
    """Refuse a denoiser that asks for more than text states and a timestep, such as SDXL's.

    Raises ConfigError.
    """
    if (extra := unet.config.get("addition_embed_type")) is not None:
        raise ConfigError(
            f"this denoiser also asks for `{extra}` embeddings, which its losses do not give yet; "
            "set loss.alignment.form=tokens, loss.denoising.weight=0 and no distillation form `teacher`"
        )


def _vae_scaling(folder: Path) -> tuple[float, float]:
    config = json.loads((folder / "vae" / "config.json").read_text())
    return float(config.get("scaling_factor", 0.18215)), float(config.get("shift_factor") or 0.0)
