"""Image quality apart from content: a Fréchet distance between generated and rendered pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from scipy.linalg import sqrtm

from sur.shapes.base.train_vae import encode_all
from sur.shapes.scenes import Scene, render_scene


def rendered(scenes: Sequence[Scene], seed: int) -> list[Image.Image]:
    """True pictures of the scenes."""
    rng = np.random.default_rng([seed, 2])
    return [render_scene(scene, rng) for scene in scenes]


@torch.no_grad()
def latent_vectors(vae: Any, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "n 48"]:
    """Mean, deviation and largest magnitude of each 4 x 4 quarter of the latent's channels, a row a picture."""
    mean, _ = encode_all(vae, np.stack([np.asarray(picture) for picture in pictures]))
    quarters = mean.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4)
    vectors = torch.cat([quarters.mean(-1), quarters.std(-1), quarters.abs().amax(-1)], 1)
    return vectors.flatten(1).double().numpy()


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Fréchet distance of two Gaussians fitted to the rows (Heusel et al. 2017, arXiv 1706.08500, eq. 6)."""
    root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    trace = np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * np.real(root))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + trace)
