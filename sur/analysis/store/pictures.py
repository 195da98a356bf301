"""Pictures of rows, decoded from their cached latents: by the VAE that made them, or to false colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from sur.analysis.store.blocks import is_latents, valued_slots
from sur.cache import Store
from sur.config.run_folder import RunFolder
from sur.support.errors import ConfigError, NotInStore

if TYPE_CHECKING:
    from PIL.Image import Image

    from sur.config.features import VAEConfig

FALSE_COLOURS = "false colours"
SAMPLE_ROWS = 64  # rows whose latents give the false colours
# What the first three principal components of the channels, in standard deviations, add to red, green and blue.
COMPONENT_COLOURS = np.array([[1, 1, 1], [0.7, 0, -0.7], [-0.35, 0.7, -0.35]], np.float32) / 4

Decoder = Callable[[np.ndarray], np.ndarray]  # latent (channels, height, width) -> pixels (height, width, 3) in [0, 1]


class LatentPictures:
    """Decodes the mean of rows' latents: by the VAE that made them if it is here, else to false colours.

    False colours are a linear map of the latent's channels: their first principal component (over 64 rows spread over
    the store) gives the brightness, the next two give hues, and pixels are enlarged to the picture's size. Shapes can
    be told in them, colours and light cannot. `how` says which of the two it is, and why.

    store: may grow meanwhile. vae: folder or hub id of a pipeline or VAE (default: that of the run beside the store);
    a VAE of other weights than made the latents is not used. feature: default: the first feature of latents.

    Raises: NotInStore when `feature` holds no latents.
    """

    def __init__(self, store: Store, vae: str | Path | None = None, feature: str | None = None) -> None:
        self._store, self._given, self._lock = store, vae, RLock()
        self._decoder_found: tuple[Decoder, str] | None = None
        names = [name for name, spec in sorted(store.features().items()) if is_latents(spec)]
        if feature is not None and feature not in names:
            raise NotInStore(f"{feature} holds no latents; those that do: {', '.join(names) or 'none'}")
        self.feature = feature or next(iter(names), None)

    @property
    def how(self) -> str:
        """How the pictures are made, for people."""
        return "no pictures: the store holds no latents" if self.feature is None else self._decoder()[1]

    @property
    def faithful(self) -> bool:
        """Whether the VAE decodes the pictures."""
        return self.feature is not None and not self._decoder()[1].startswith(FALSE_COLOURS)

    def picture(self, slot: int) -> Image:
        """The picture of a row (its first view).

        Raises: NotInStore when the row has no latent; the message says why.
        """
        from PIL import Image

        store, name = self._store, self.feature
        if name is None:
            raise NotInStore(f"{store.path} holds no latents; pictures come from the feature of a `vae` section")
        size = store.rows_per_partition
        receipt = store.receipt(name, slot // size) if 0 <= slot // size < store.n_partitions else None
        if receipt is None or slot % size >= receipt.rows:
            raise NotInStore(f"slot {slot} has no latent in {name}: there is no such row, or it is not extracted yet")
        if slot % size in receipt.missing:
            raise NotInStore(f"slot {slot} has no latent in {name}: {receipt.missing[slot % size]}")
        with self._lock:
            decode = self._decoder()[0]
            assert decode is not None  # there is a latent
            pixels = decode(self._latents(np.array([slot]))[0])
        return Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8))

    def _decoder(self) -> tuple[Decoder | None, str]:
        """The decoder and a sentence about it, for people.

        It is chosen once, but false colours not before there is a latent: until then the decoder is None.
        """
        assert self.feature is not None
        with self._lock:
            if self._decoder_found is None:
                try:
                    folder = find_vae(self._store, self._store.spec(self.feature).identity, self._given)
                    self._decoder_found = _vae_decoder(folder), f"decoded by the VAE in {folder}"
                except NotInStore as error:
                    how = f"{FALSE_COLOURS}, of principal components of the latents: {error}"
                    slots = valued_slots(self._store, self.feature)[0]
                    if not len(slots):
                        return None, how
                    self._decoder_found = self._false_colours(slots), how
            return self._decoder_found

    def _latents(self, slots: np.ndarray) -> np.ndarray:
        """First views, float32 (n, channels, height, width)."""
        assert self.feature is not None
        return self._store.read_float32(self.feature, slots, "mean")[:, 0]

    def _false_colours(self, slots: np.ndarray) -> Decoder:
        """A decoder fitted to latents spread over the slots."""
        assert self.feature is not None
        spec = self._store.spec(self.feature)
        shape = spec.arrays["mean"].shape
        sample = slots[np.unique(np.linspace(0, len(slots) - 1, min(SAMPLE_ROWS, len(slots))).astype(np.int64))]
        latents = np.moveaxis(self._latents(sample), 1, -1).reshape(-1, shape[1])
        mean = latents.mean(axis=0)
        _, deviations, components = np.linalg.svd(latents - mean, full_matrices=False)
        components = components[:3] * np.where(components[:3].sum(axis=1, keepdims=True) < 0, -1, 1)
        scales = np.maximum(deviations[: len(components)] / math.sqrt(len(latents)), 1e-6)
        to_rgb = (components.T / scales) @ COMPONENT_COLOURS[: len(components)]
        enlarge = max(1, spec.identity.get("resolution", 0) // shape[-1])

        def pixels(latent: np.ndarray) -> np.ndarray:
            rgb = 0.5 + (np.moveaxis(latent, 0, -1) - mean) @ to_rgb
            return rgb.repeat(enlarge, axis=0).repeat(enlarge, axis=1)

        return pixels


def find_vae(store: Store, identity: Mapping[str, Any], given: str | Path | None = None) -> Path:
    """Folder of the VAE that made a latent feature.

    given: folder or hub id of a pipeline or a VAE; default: the VAE of the run beside the store.

    Raises: NotInStore when the VAE is not here or has other weights; the message names the place.
    """
    from sur.models.fingerprint import weights_fingerprint

    name = identity.get("model", "?")
    vae = None if given else vae_of_run_beside(store)
    model, revision = str(given) if given else None, None
    if vae is not None:
        model, revision = vae.model, vae.revision
    if model is None:
        raise NotInStore(f"no run configuration lies beside the store to say where the VAE {name!r} is")
    try:
        folder = _vae_folder(model, revision)
        fingerprint = weights_fingerprint(folder)
    except (FileNotFoundError, ValueError) as error:
        raise NotInStore(f"the VAE {name!r} is not here: {error}") from error
    if fingerprint != identity.get("weights"):
        raise NotInStore(
            f"the VAE in {folder} has weights {fingerprint[:8]}, the feature was made with "
            f"{str(identity.get('weights'))[:8]}"
        )
    return folder


def vae_of_run_beside(store: Store) -> VAEConfig | None:
    """The VAE settings of the run whose folder the store lies in; None without a run that can be read."""
    from sur.config.run import load_config

    if isinstance(store.path, str):
        return None
    try:
        return load_config(RunFolder(store.path.parent).config).vae
    except ConfigError:
        return None


def _vae_folder(model: str, revision: str | None) -> Path:
    from sur.config.features import VAEConfig
    from sur.features.encoders.vae import VAEEncoder
    from sur.models.locate import VAE_WEIGHTS, locate

    pipeline = locate(model, revision, needed=VAE_WEIGHTS, download=False).folder
    return VAEEncoder(VAEConfig(model=str(pipeline))).folder(VAE_WEIGHTS)


def _vae_decoder(folder: Path) -> Decoder:
    import torch

    from sur.features.encoders.vae import load_vae
    from sur.models.libraries import pick_device

    vae = load_vae(folder, pick_device("auto"), torch.float32)

    @torch.inference_mode()
    def pixels(latent: np.ndarray) -> np.ndarray:
        sample = vae.decode(torch.from_numpy(latent)[None].to(vae.device)).sample[0]
        return (sample.float().cpu().permute(1, 2, 0) / 2 + 0.5).numpy()

    return pixels
