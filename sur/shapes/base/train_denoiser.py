"""Trains the shapes world's UNet on complex prompts only, so that narrative prompts are its weakness."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int
from torch import Tensor

NULL_SHARE = 0.1


def build_unet() -> UNet2DConditionModel:
    """About 4.3 million parameters on 8 x 8 latents."""
    blocks = ("CrossAttnDownBlock2D",) * 2, ("CrossAttnUpBlock2D",) * 2
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(64, 128), layers_per_block=1,
        down_block_types=blocks[0], up_block_types=blocks[1], cross_attention_dim=128, attention_head_dim=4,
        norm_num_groups=16,
    )  # fmt: skip


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule; epsilon prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def train_denoiser(
    latents: tuple[Float[Tensor, "rows 4 8 8"], Float[Tensor, "rows 4 8 8"]],
    scaling: float,
    states: Float[Tensor, "prompts tokens dim"],
    prompt_of: Int[Tensor, "rows variants"],
    null_states: Float[Tensor, "tokens dim"],
    seed: int,
    steps: int,
    start: UNet2DConditionModel | None = None,
    peak: float = 1e-3,
    weight: Float[Tensor, " rows"] | None = None,
    batch_size: int = 64,
) -> Iterator[tuple[int, float, UNet2DConditionModel, EMAModel]]:
    """Epsilon loss with 10 % null prompts; yields (step, loss, model, moving average of its weights).

    latents: mean and log-variance, unscaled. prompt_of: for each row the indices of its prompts in `states`.
    start: model to go on from; none: a fresh one. peak: learning rate. weight: how often each row is drawn.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.ones(len(prompt_of)) if weight is None else weight
    unet = (start or build_unet()).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    scheduler = build_scheduler()
    optimiser = torch.optim.AdamW(unet.parameters(), lr=peak, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps, pct_start=0.05)
    mean, logvar = latents
    for step in range(steps):
        rows = torch.multinomial(weight, batch_size, replacement=True, generator=generator)
        variant = torch.randint(prompt_of.shape[1], (batch_size,), generator=generator)
        context = states[prompt_of[rows, variant]].float()
        null = torch.rand(batch_size, generator=generator) < NULL_SHARE
        context = torch.where(null[:, None, None], null_states, context)
        spread = torch.exp(0.5 * logvar[rows])
        clean = scaling * (mean[rows] + spread * torch.randn(mean[rows].shape, generator=generator))
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (batch_size,), generator=generator)
        predicted = unet(scheduler.add_noise(clean, noise, timesteps), timesteps, context).sample  # type: ignore
        loss = F.mse_loss(predicted, noise)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.step(unet.parameters())
        yield step, loss.item(), unet, average
