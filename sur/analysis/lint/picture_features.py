"""How pictures look, in a few numbers each: of latents in a store, or of the files of a data source."""

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
class Looks:
    """Of the rows at `indices`, int64 (n,): `vectors` float32 (n, dim), alike where pictures are; `digests`, equal
    where pictures are; `spread` float32 (n,), how much there is to see: the deviation of pixels over a picture, in
    [0, 0.5] (of latents: relative to most rows'). how: what they are made of."""

    indices: np.ndarray
    vectors: np.ndarray
    digests: list[bytes]
    spread: np.ndarray
    how: str


def latent_looks(store: Store, feature: str, rows: Sequence[RowRecord]) -> Looks:
    """Of cached latents, averaged over a grid of at most 8 x 8."""
    vectors, slots = row_vectors(store, feature)
    place = {row.slot: index for index, row in enumerate(rows)}
    kept = [(at, place[slot]) for at, slot in enumerate(slots.tolist()) if slot in place]
    at, indices = (np.array(column, np.int64) for column in (zip(*kept, strict=True) if kept else ((), ())))
    vectors = np.asarray(vectors[at])
    channels = store.spec(feature).arrays["mean"].shape[1]
    spread = vectors.reshape(len(vectors), channels, -1).std(axis=2).mean(axis=1) if len(vectors) else np.zeros(0)
    usual = float(np.median(spread)) if len(spread) else 1.0
    digests = [vector.tobytes() for vector in vectors]
    return Looks(
        indices, vectors, digests, (spread / max(usual, 1e-12)).astype(np.float32), f"the latents of {feature}"
    )


def file_looks(
    source: RowSource, rows: Sequence[RowRecord], progress: Callable[[int, int], None] | None = None
) -> Looks:
    """Of picture files, shrunk to 16 x 16; rows whose file cannot be read are left out (they are `unusable`)."""
    seen: dict[str, tuple[np.ndarray, bytes, float] | None] = {}
    kept = []
    for index, row in enumerate(rows):
        if row.image and row.image not in seen:
            seen[row.image] = _look(source, row.image)
        if row.image and seen[row.image] is not None:
            kept.append((index, seen[row.image]))
        if progress is not None:
            progress(index + 1, len(rows))
    vectors = np.stack([look[0] for _, look in kept]) if kept else np.zeros((0, 3 * SIDE * SIDE), np.float32)
    indices, spread = np.array([i for i, _ in kept], np.int64), np.array([look[2] for _, look in kept], np.float32)
    return Looks(indices, vectors, [look[1] for _, look in kept], spread, "the picture files")


def pixel_spread(image: Image.Image) -> float:
    """Deviation of the pixels from the picture's mean colour, in [0, 0.5]."""
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    return float(np.sqrt(((pixels - pixels.mean(axis=(0, 1))) ** 2).mean()))


def _look(source: RowSource, reference: str) -> tuple[np.ndarray, bytes, float] | None:
    try:
        content = source.image_bytes(reference)
        image = decode(content, source.config.max_image_pixels)
    except ValueError:
        return None
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).reshape(-1) / 255
    return small, hashlib.blake2b(content, digest_size=16).digest(), pixel_spread(image)
