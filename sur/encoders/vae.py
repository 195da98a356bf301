"""The pipeline's VAE: mean and log-variance of every image's latent distribution."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cache import ArraySpec, Codec, FeatureSpec
from sur.encoders.base import (
    Encoded,
    FloatName,
    checked_names,
    free_memory,
    major_version,
    pick_device,
    slug,
    stored_numpy,
    to_stored,
)
from sur.encoders.locate import PIPELINE_CONFIG, VAE_WEIGHTS, locate
from sur.encoders.quiet import quiet_libraries
from sur.fingerprint import weights_fingerprint
from sur.images import CropPolicy, square

ENCODER_VERSION = 1


class VAEConfig(BaseModel):
    """Which VAE sees the images, and how they are brought to its size."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str | None = Field(default=None, description="diffusers pipeline folder or hub id; default: base_model")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    slug: str | None = Field(default=None, description="name in the feature; default: last part of `model`")
    resolution: int = Field(default=512, ge=8, description="side of the square image in pixels")
    crop: CropPolicy = Field(default="center", description="center: cut the middle square; stretch: scale sides apart")
    flips: bool = Field(default=False, description="also store the mirrored image's latents, as view 1")
    store_dtype: FloatName = Field(default="float16", description="dtype in the cache")
    compute_dtype: FloatName = Field(default="float32", description="dtype of the weights (SDXL's needs float32)")
    codec: Codec = Field(default="raw", description="packs the values on disk; raw is the fastest to read at random")
    keep_bits: int = Field(default=0, ge=0, description="bits of the mantissa kept when stored; 0 = all")
    batch_size: int = Field(default=8, ge=1, description="images a forward pass")
    device: str = Field(default="auto", description="torch device; auto: CUDA when there is one")

    @property
    def name(self) -> str:
        """The slug that features carry."""
        if self.slug is None and self.model is None:
            raise ValueError("vae has no model: set base_model, vae.model or vae.slug")
        return self.slug or slug(str(self.model))

    @property
    def feature_name(self) -> str:
        """Name of the one feature."""
        return f"vae.{self.name}.{self.resolution}"


class VAEEncoder:
    """Mean and log-variance of the images' latents, unscaled; sampling and scaling are left to training.

    Arrays: `mean` and `logvar`, (views, channels, height, width); view 0 is the image, view 1 (with flips)
    its mirror image.
    """

    kind = "vae"
    consumes = "image"

    def __init__(self, config: VAEConfig) -> None:
        if config.model is None:
            raise ValueError("vae has no model: set base_model or vae.model")
        self.config = config
        self._vae: Any = None

    def folder(self, needed: Sequence[str] = PIPELINE_CONFIG) -> Path:
        """The VAE's folder, with the needed files: `vae` in a pipeline's folder, or the model's folder itself."""
        found = locate(str(self.config.model), self.config.revision, needed=needed).folder
        return found / "vae" if (found / "vae").is_dir() else found

    def shapes(self) -> dict[str, dict[str, ArraySpec]]:
        """Arrays of the feature; needs the VAE's config.json, not its weights.

        Raises: ValueError when the VAE is of another kind, or the resolution does not suit it.
        """
        config = self._vae_config()
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        side, rest = divmod(self.config.resolution, factor)
        if rest:
            raise ValueError(
                f"vae.resolution is {self.config.resolution}, but this VAE shrinks by {factor}; "
                f"use a multiple of it such as {max(side, 1) * factor}"
            )
        shape = (2 if self.config.flips else 1, config["latent_channels"], side, side)
        spec = ArraySpec(self.config.store_dtype, shape, self.config.codec, self.config.keep_bits)
        return {self.config.feature_name: {"mean": spec, "logvar": spec}}

    def specs(self) -> list[FeatureSpec]:
        """The one feature and its identity."""
        config = self.config
        identity = {
            "model": config.name,
            "architecture": self._vae_config()["_class_name"],
            "weights": weights_fingerprint(self.folder(VAE_WEIGHTS)),
            "resolution": config.resolution,
            "crop": config.crop,
            "resample": "lanczos",
            "flips": config.flips,
            "compute_dtype": config.compute_dtype,
            "store_dtype": config.store_dtype,
            "engine": "diffusers",
            "engine_version": major_version("diffusers"),
            "encoder_version": ENCODER_VERSION,
        }
        return [FeatureSpec(config.feature_name, self.kind, identity, self.shapes()[config.feature_name])]

    def encode(self, items: Sequence[Image.Image], names: Collection[str] | None = None) -> Encoded:
        """Latents of RGB images of any size. stats: images, views (forward passes of one image)."""
        name = self.config.feature_name
        if not checked_names(names, [name]):
            return Encoded({})
        arrays, config = self.shapes()[name], self.config
        values = {
            array: np.zeros((len(items), *spec.shape), stored_numpy(spec.dtype)) for array, spec in arrays.items()
        }
        bad: dict[int, str] = {}
        for start in range(0, len(items), config.batch_size):
            squares = [square(i, config.resolution, config.crop) for i in items[start : start + config.batch_size]]
            pixels = to_tensor(squares)
            views = [pixels, pixels.flip(-1)] if config.flips else [pixels]
            for view, seen in enumerate(views):
                for array, made in zip(("mean", "logvar"), self._distribution(seen), strict=True):
                    stored, faults = to_stored(made, config.store_dtype)
                    values[array][start : start + len(squares), view] = stored
                    bad |= {start + item: f"{array} is {fault}" for item, fault in faults.items()}
        for made in values.values():
            made[list(bad)] = 0
        n_views = len(items) * (2 if config.flips else 1)
        return Encoded({name: values}, bad, {"images": len(items), "views": n_views})

    def close(self) -> None:
        """Forget the weights."""
        self._vae = None
        free_memory()

    @torch.inference_mode()
    def _distribution(self, pixels: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, Tensor]:
        vae = self._load()
        latent = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        return latent.mean, latent.logvar

    def _vae_config(self) -> dict[str, Any]:
        file = self.folder() / "config.json"
        config = json.loads(file.read_text()) if file.is_file() else {}
        if config.get("_class_name") != "AutoencoderKL":
            raise ValueError(
                f"{file.parent} holds {config.get('_class_name', 'no VAE')}; an AutoencoderKL is needed, "
                "in the pipeline's folder `vae` or as the folder itself"
            )
        return config

    def _load(self) -> Any:
        if self._vae is None:
            self._vae = load_vae(
                self.folder(VAE_WEIGHTS), pick_device(self.config.device), getattr(torch, self.config.compute_dtype)
            )
        return self._vae


def load_vae(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """A frozen AutoencoderKL from its own folder; safetensors only."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with quiet_libraries():
        vae: Any = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        vae.to(device, dtype)
    return vae.eval().requires_grad_(False)


def to_tensor(images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 height width"]:
    """Equally large RGB images as float32 in [-1, 1], as a diffusers VAE expects them."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0
