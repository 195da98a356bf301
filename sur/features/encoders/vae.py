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
from torch import Tensor

from sur.cache import ArraySpec, FeatureSpec
from sur.cache.format.dtypes import stored_dtype
from sur.config.features import VAEConfig
from sur.features.encoders.base import EncodedItems, cast_to_stored, checked_names
from sur.models.fingerprint import weights_fingerprint
from sur.models.libraries import free_memory, major_version, pick_device, quiet_libraries
from sur.models.locate import PIPELINE_CONFIG, VAE_WEIGHTS, locate
from sur.support.images import square

ENCODER_VERSION = 1


class VAEEncoder:
    """Mean and log-variance of the images' latents, unscaled; sampling and scaling are left to training.

    Arrays: `mean` and `logvar`, (views, channels, height, width); view 0 is the image, view 1 (with flips)
    its mirror image.
    """

    key = kind = "vae"
    consumes = "image"

    def __init__(self, config: VAEConfig) -> None:
        if config.model is None:
            raise ValueError("vae has no model: set base_model or vae.model")
        self.config = config
        self._vae: Any = None

    def folder(self, needed: Sequence[str] = PIPELINE_CONFIG) -> Path:
        """The VAE's folder, with the needed files: `vae` in a pipeline's folder, or the model's folder itself."""
        folder = locate(str(self.config.model), self.config.revision, needed=needed).folder
        return folder / "vae" if (folder / "vae").is_dir() else folder

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

    def encode(self, items: Sequence[Image.Image], names: Collection[str] | None = None) -> EncodedItems:
        """Latents of RGB images of any size. stats: images, views (forward passes of one image)."""
        name = self.config.feature_name
        if not checked_names(names, [name]):
            return EncodedItems({})
        arrays, config = self.shapes()[name], self.config
        values = {
            array: np.zeros((len(items), *spec.shape), stored_dtype(spec.dtype)) for array, spec in arrays.items()
        }
        bad: dict[int, str] = {}
        for start in range(0, len(items), config.batch_size):
            squares = [square(i, config.resolution, config.crop) for i in items[start : start + config.batch_size]]
            pixels = to_tensor(squares)
            views = [pixels, pixels.flip(-1)] if config.flips else [pixels]
            for view, view_pixels in enumerate(views):
                for array, moments in zip(("mean", "logvar"), self._distribution(view_pixels), strict=True):
                    stored, faults = cast_to_stored(moments, config.store_dtype)
                    values[array][start : start + len(squares), view] = stored
                    bad |= {start + item: f"{array} is {fault}" for item, fault in faults.items()}
        for stored in values.values():
            stored[list(bad)] = 0
        n_views = len(items) * (2 if config.flips else 1)
        return EncodedItems({name: values}, bad, {"images": len(items), "views": n_views})

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
