"""Small vectors of pictures for comparing them, from latents in a store or from the files of a data source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sur.analysis.store.vectors import row_vectors
from sur.cache import RowRecord, Store
from sur.data import RowSource
from sur.support.images import decode

SIDE = 16  # pixels of the small picture


@dataclass(frozen=True)
class PictureFeatures:
    """Features of the pictures of the rows at `indices`, int64 (n,).

    vectors: float32 (n, dim), near for similar pictures. digests: equal for identical pictures. spread: float32 (n,),
    the deviation of a picture's pixels in [0, 0.5], or that of its latents relative to most rows'. how: the source of
    the features, for people.
    """

    indices: np.ndarray
    vectors: np.ndarray
    digests: list[bytes]
    spread: np.ndarray
    how: str


def latent_features(store: Store, feature: str, rows: Sequence[RowRecord]) -> PictureFeatures:
    """Features from cached latents, which are averaged over a grid of at most 8 x 8."""
    vectors, slots = row_vectors(store, feature)
    place = {row.slot: index for index, row in enumerate(rows)}
    pairs = [(at, place[slot]) for at, slot in enumerate(slots.tolist()) if slot in place]
    chosen, indices = (np.array(column, np.int64) for column in (zip(*pairs, strict=True) if pairs else ((), ())))
    vectors = np.asarray(vectors[chosen])
    channels = store.spec(feature).arrays["mean"].shape[1]
    spread = vectors.reshape(len(vectors), channels, -1).std(axis=2).mean(axis=1) if len(vectors) else np.zeros(0)
    usual = float(np.median(spread)) if len(spread) else 1.0
    digests = [vector.tobytes() for vector in vectors]
    return PictureFeatures(
        indices, vectors, digests, (spread / max(usual, 1e-12)).astype(np.float32), f"the latents of {feature}"
    )


def file_features(
    source: RowSource, rows: Sequence[RowRecord], progress: Callable[[int, int], None] | None = None
) -> PictureFeatures:
    """Features from picture files, which are shrunk to 16 x 16; a file that cannot be read is left out (`unusable`)."""
    by_reference: dict[str, tuple[np.ndarray, bytes, float] | None] = {}
    looks = []
    for index, row in enumerate(rows):
        if row.image and row.image not in by_reference:
            by_reference[row.image] = _look(source, row.image)
        if row.image and (look := by_reference[row.image]) is not None:
            looks.append((index, look))
        if progress is not None:
            progress(index + 1, len(rows))
    vectors = np.stack([look[0] for _, look in looks]) if looks else np.zeros((0, 3 * SIDE * SIDE), np.float32)
    indices, spread = np.array([i for i, _ in looks], np.int64), np.array([look[2] for _, look in looks], np.float32)
    return PictureFeatures(indices, vectors, [look[1] for _, look in looks], spread, "the picture files")


def pixel_spread(image: Image.Image) -> float:
    """Deviation of the pixels from the picture's mean colour, in [0, 0.5]."""
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    return float(np.sqrt(((pixels - pixels.mean(axis=(0, 1))) ** 2).mean()))


def _look(source: RowSource, reference: str) -> tuple[np.ndarray, bytes, float] | None:
    """Vector, digest and spread of a picture file; None for one that cannot be read."""
    try:
        content = source.image_bytes(reference)
        image = decode(content, source.config.max_image_pixels)
    except ValueError:
        return None
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).reshape(-1) / 255
    return small, hashlib.blake2b(content, digest_size=16).digest(), pixel_spread(image)
