"""Pictures of rows, from their cached latents."""

from __future__ import annotations

import math
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from sur.analysis.store.blocks import is_latents, valued_slots
from sur.cache import Store
from sur.support.errors import NotInStore

if TYPE_CHECKING:
    from PIL.Image import Image
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sur.config.run import RunConfig


FALSE = "false colours"
SAMPLE_ROWS = 64  # rows whose latents give the false colours
# What the first three principal components of the channels, in standard deviations, add to red, green and blue.
COMPONENT_COLOURS = np.array([[1, 1, 1], [0.7, 0, -0.7], [-0.35, 0.7, -0.35]], np.float32) / 4


class LatentPictures:
    """Decodes the mean of rows' latents: by the VAE that made them where it is here, else to false colours.

    False colours are a linear map of the latent's channels: their first principal component (over 64 rows spread over
    the store) gives the brightness, the next two give hues, and pixels are enlarged to the picture's size. Shapes can
    be told in them, colours and light cannot. `how` says which it is, and why.

    store: may grow meanwhile. vae: a pipeline's or VAE's folder or hub id, default: that of the run beside the store;
    another one than made the latents is not used. feature: default: the first feature of latents.

    Raises: NotInStore when `feature` holds no latents.
    """

    def __init__(self, store: Store, vae: str | Path | None = None, feature: str | None = None) -> None:
        self._store, self._given, self._lock = store, vae, RLock()
        self._made: tuple[Any, str] | None = None
        names = [name for name, spec in sorted(store.features().items()) if is_latents(spec)]
        if feature is not None and feature not in names:
            raise NotInStore(f"{feature} holds no latents; those that do: {', '.join(names) or 'none'}")
        self.feature = feature or next(iter(names), None)

    @property
    def how(self) -> str:
        """What made the pictures, for people."""
        return "no pictures: the store holds no latents" if self.feature is None else self._decoder[1]

    @property
    def faithful(self) -> bool:
        """Whether pictures are what the VAE decodes."""
        return self.feature is not None and not self._decoder[1].startswith(FALSE)

    def picture(self, slot: int) -> Image:
        """The picture of a row (its first view).

        Raises: NotInStore when the row has no latent, with the reason.
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
            pixels = self._decoder[0](self._latents(np.array([slot]))[0])
        return Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8))

    @property
    def _decoder(self) -> tuple[Any, str]:
        """The function from a latent (channels, height, width) to pixels (height, width, 3) in [0, 1], and its name.

        It is made once, but false colours not before there is a latent: until then the function is None.
        """
        assert self.feature is not None
        with self._lock:
            if self._made is None:
                try:
                    folder = find_vae(self._store, self._store.spec(self.feature).identity, self._given)
                    self._made = _vae_decoder(folder), f"decoded by the VAE in {folder}"
                except NotInStore as error:
                    said = f"{FALSE}, of principal components of the latents: {error}"
                    slots = valued_slots(self._store, self.feature)[0]
                    if not len(slots):
                        return None, said
                    self._made = self._false_colours(slots), said
            return self._made

    def _latents(self, slots: np.ndarray) -> np.ndarray:
        """First views, float32 (n, channels, height, width)."""
        assert self.feature is not None
        return self._store.read_float32(self.feature, slots, "mean")[:, 0]

    def _false_colours(self, slots: np.ndarray) -> Any:
        """A decoder fitted to latents spread over the slots."""
        assert self.feature is not None
        chosen = slots[np.unique(np.linspace(0, len(slots) - 1, min(SAMPLE_ROWS, len(slots))).astype(np.int64))]
        latents = np.moveaxis(self._latents(chosen), 1, -1).reshape(
            -1, self._store.spec(self.feature).arrays["mean"].shape[1]
        )
        mean = latents.mean(axis=0)
        _, deviations, components = np.linalg.svd(latents - mean, full_matrices=False)
        components = components[:3] * np.where(components[:3].sum(axis=1, keepdims=True) < 0, -1, 1)
        scales = np.maximum(deviations[: len(components)] / math.sqrt(len(latents)), 1e-6)
        to_rgb = (components.T / scales) @ COMPONENT_COLOURS[: len(components)]
        enlarge = max(1, self._store.spec(self.feature).identity.get("resolution", 0) // self._shape()[-1])

        def pixels(latent: np.ndarray) -> np.ndarray:
            rgb = 0.5 + (np.moveaxis(latent, 0, -1) - mean) @ to_rgb
            return rgb.repeat(enlarge, axis=0).repeat(enlarge, axis=1)

        return pixels

    def _shape(self) -> tuple[int, ...]:
        return self._store.spec(str(self.feature)).arrays["mean"].shape


def _vae_decoder(folder: Path) -> Any:
    import torch

    from sur.features.encoders.vae import load_vae
    from sur.models.libraries import pick_device

    vae = load_vae(folder, pick_device("auto"), torch.float32)

    @torch.inference_mode()
    def pixels(latent: np.ndarray) -> np.ndarray:
        made = vae.decode(torch.from_numpy(latent)[None].to(vae.device)).sample[0]
        return (made.float().cpu().permute(1, 2, 0) / 2 + 0.5).numpy()

    return pixels


def config_beside(store: Store) -> RunConfig | None:
    """The configuration of the run whose folder the store lies in, None without one that can be read."""
    from sur.config.load import RESOLVED_NAME
    from sur.config.run import load_config
    from sur.support.errors import ConfigError

    if isinstance(store.path, str):
        return None
    try:
        return load_config(store.path.parent / RESOLVED_NAME)
    except ConfigError:
        return None


def find_vae(store: Store, identity: Mapping[str, Any], given: str | Path | None = None) -> Path:
    """Folder of the VAE that made a latent feature: `given` (a pipeline's or the VAE's own), else the run's.

    Raises: NotInStore saying what was looked at, when it is not there or has other weights.
    """
    from sur.config.features import VAEConfig
    from sur.features.encoders.vae import VAEEncoder
    from sur.models.locate import VAE_WEIGHTS, locate

    def folder(model: str, revision: str | None) -> Path:
        there = locate(model, revision, needed=VAE_WEIGHTS, download=False).folder
        return VAEEncoder(VAEConfig(model=str(there))).folder(VAE_WEIGHTS)

    config = None if given else config_beside(store)
    model = str(given) if given else None
    revision = None
    if config is not None and config.vae is not None:
        model, revision = config.vae.model, config.vae.revision
    return _of_these_weights(folder, model, revision, identity, "VAE")


def _of_these_weights(
    folder: Callable[[str, str | None], Path],
    model: str | None,
    revision: str | None,
    identity: Mapping[str, Any],
    what: str,
) -> Path:
    from sur.models.fingerprint import weights_fingerprint

    name = identity.get("model", "?")
    if model is None:
        raise NotInStore(f"no run configuration lies beside the store to say where the {what} {name!r} is")
    try:
        found = folder(model, revision)
        fingerprint = weights_fingerprint(found)
    except (FileNotFoundError, ValueError) as error:
        raise NotInStore(f"the {what} {name!r} is not here: {error}") from error
    if fingerprint != identity.get("weights"):
        raise NotInStore(
            f"the {what} in {found} has weights {fingerprint[:8]}, the feature was made with "
            f"{str(identity.get('weights'))[:8]}"
        )
    return found
