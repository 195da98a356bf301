"""Which row is served when: pure functions of row ids, seed and epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "validation", "all"]


@dataclass(frozen=True)
class Order:
    """Order in which a loader serves its rows, and the share of one process.

    seed: Seed of the order of every epoch.
    rank, world_size: Number of this process, and number of processes that share each global batch.
    drop_last: Whether the last batch of an epoch is left out if it is not full.
    window: Number of partitions that are mixed at a time; 0 mixes all rows. None takes the manifest's window, or else 8
        where single rows are expensive to read (the store is remote, or a feature is packed) and 0 elsewhere.
    """

    seed: int = 0
    rank: int = 0
    world_size: int = 1
    drop_last: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0 or not 0 <= self.rank < self.world_size or (self.window is not None and self.window < 0):
            raise ValueError(
                "Expected seed >= 0, window >= 0 and 0 <= rank < world_size, "
                f"got {self.seed}, {self.window}, {self.rank} and {self.world_size}."
            )


def in_split(ids: np.ndarray, split: Split, validation_fraction: float) -> np.ndarray:
    """Which rows of `ids`, uint8 (n, 16), belong to a split: bool (n,).

    A row belongs to the validation split if the first 64 bits of its id, which is a hash, are below that fraction of
    2^64. So new rows never move other rows between the splits.
    """
    if split == "all":
        return np.ones(len(ids), dtype=bool)
    share = np.ascontiguousarray(ids[:, :8]).view(">u8")[:, 0] / 2.0**64
    return (share < validation_fraction) == (split == "validation")


def epoch_order(partitions: np.ndarray, seed: int, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Order of the rows in an epoch, int64 (rows,), and the window of each row, int64 (rows,), None without windows.

    `partitions`, int64 (rows,), names the partition of each row; `window` of them are mixed at a time, 0: all.
    """
    if window:
        return windowed_permutation(partitions, seed, epoch, window)
    return permutation(len(partitions), seed, epoch), None


def permutation(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Random order of the rows in an epoch, int64 (n_rows,).

    It is made from the raw stream of a counter-based generator (Philox), which numpy guarantees never to change.
    numpy gives no such guarantee for `Generator.permutation`.
    """
    return np.argsort(_keys(n_rows, seed, epoch), kind="stable")


def windowed_permutation(partitions: np.ndarray, seed: int, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Random order that mixes `window` partitions at a time: (order, window of each row), both int64 (rows,).

    `partitions`, int64 (rows,), names the partition of each row. The partitions come in random order, each `window` of
    them make a window, and the rows of a window are permuted. So a reader has to hold one window, not all rows.
    """
    unique, index = np.unique(partitions, return_inverse=True)
    place = np.empty(len(unique), dtype=np.int64)
    place[np.argsort(_keys(len(unique), seed, epoch, stream=1), kind="stable")] = np.arange(len(unique))
    windows = place[index] // window
    return np.lexsort((_keys(len(partitions), seed, epoch), windows)), windows


def rank_share(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The contiguous part of a global batch that one rank gets; parts differ by at most one row."""
    return batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]


def _keys(n: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    return np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, stream]).random_raw(n)
