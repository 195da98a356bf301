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
    keys = np.random.Philox(key=[seed, epoch]).random_raw(n_rows)
    return np.argsort(keys, kind="stable")


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
