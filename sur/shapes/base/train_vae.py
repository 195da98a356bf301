"""Trains the shapes world's AutoencoderKL: 64 x 64 pictures, factor 8, 4 latent channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def build_vae() -> AutoencoderKL:
    """About 1.0 million parameters."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=64, latent_channels=4, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(16, 32, 64, 64),  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def to_pixels(pictures: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n 3 height width"]:
    """Pictures as the VAE reads them: -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(
    pictures: UInt8[np.ndarray, "n 64 64 3"], seed: int, steps: int = 1500, batch_size: int = 32
) -> Iterator[tuple[int, float, AutoencoderKL]]:
    """L1 + MSE reconstruction with a slight KL; yields (step, reconstruction L1, model) after every step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = build_vae().train()
    optimiser = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        pixels = to_pixels(pictures[rng.integers(0, len(pictures), batch_size)])
        posterior = vae.encode(pixels).latent_dist  # type: ignore[union-attr]
        decoded = vae.decode(posterior.sample()).sample  # type: ignore[union-attr]
        l1 = F.l1_loss(decoded, pixels)
        loss = l1 + F.mse_loss(decoded, pixels) + 1e-5 * posterior.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        yield step, l1.item(), vae


@torch.no_grad()
def encode_all(
    vae: AutoencoderKL, pictures: UInt8[np.ndarray, "n 64 64 3"], batch_size: int = 128
) -> tuple[Float[Tensor, "n 4 8 8"], Float[Tensor, "n 4 8 8"]]:
    """Mean and log-variance of every picture's latent, unscaled, float32 in CPU memory."""
    parts = [
        vae.encode(to_pixels(pictures[i : i + batch_size]).to(vae.device, vae.dtype)).latent_dist  # type: ignore
        for i in range(0, len(pictures), batch_size)
    ]
    return torch.cat([p.mean.float().cpu() for p in parts]), torch.cat([p.logvar.float().cpu() for p in parts])
