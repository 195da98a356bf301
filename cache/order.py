"""Which row comes when: pure functions of ids, seed and epoch."""

from __future__ import annotations

from typing import Literal

import numpy as np

Split = Literal["train", "validation", "all"]


def permutation(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the rows in an epoch, int64 (n_rows,).

    Made from the raw stream of a counter-based generator (Philox), which numpy guarantees never to change,
    rather than from `Generator.permutation`, which it does not.
    """
    return np.argsort(_keys(n_rows, seed, epoch), kind="stable")


def windowed_permutation(partitions: np.ndarray, seed: int, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Order in which `window` partitions at a time are mixed: (order, window of each row), int64 (n_rows,) both.

    `partitions`, int64 (n_rows,), names the partition of each row. Partitions come in random order, `window` of them
    make a window, and within a window the rows are permuted: a reader has to hold one window, not everything.
    """
    unique, index = np.unique(partitions, return_inverse=True)
    place = np.empty(len(unique), dtype=np.int64)
    place[np.argsort(_keys(len(unique), seed, epoch, stream=1), kind="stable")] = np.arange(len(unique))
    windows = place[index] // window
    return np.lexsort((_keys(len(partitions), seed, epoch), windows)), windows


def in_split(ids: np.ndarray, split: Split, validation_fraction: float) -> np.ndarray:
    """Which rows of `ids`, uint8 (n, 16), belong to a split, bool (n,).

    A row is for validation if the first 64 bits of its id, a hash already, are below the fraction of 2^64:
    appending rows never moves another row between the splits.
    """
    if split == "all":
        return np.ones(len(ids), dtype=bool)
    share = np.ascontiguousarray(ids[:, :8]).view(">u8")[:, 0] / 2.0**64
    return (share < validation_fraction) == (split == "validation")


def rank_share(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """This rank's contiguous part of a global batch; parts differ by one row at most."""
    return batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]


def _keys(n: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    return np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, stream]).random_raw(n)
