"""Which row comes when: pure functions of ids, seed and epoch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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


_READERS = 4  # threads that read partitions
Arrays = dict[str, np.ndarray]


def gather(read: Callable[[int], Arrays], slots: np.ndarray, rows_per_partition: int) -> Arrays:
    """Rows at `slots`, int64 (n,), in their order, out of what `read` gives for each partition: arrays (n, ...)."""
    partitions, places = np.divmod(slots, rows_per_partition)
    order = np.argsort(partitions, kind="stable")
    starts = np.flatnonzero(np.diff(partitions[order], prepend=-1))
    out: Arrays = {}
    for chosen in np.split(order, starts[1:]):
        for key, values in read(int(partitions[chosen[0]])).items():
            if key not in out:
                out[key] = np.empty((len(slots), *values.shape[1:]), dtype=values.dtype)
            out[key][chosen] = values[places[chosen]]
    return out


class Window:
    """Partitions in memory, those of the window that is served and of the next.

    `windows`: window of each row, int64 (rows,); `slots`: its slot.
    """

    def __init__(
        self, read: Callable[[int], Arrays], windows: np.ndarray, slots: np.ndarray, rows_per_partition: int
    ) -> None:
        self._read, self._windows, self._slots = read, windows, slots
        self._rows_per_partition = rows_per_partition
        pairs = np.unique(np.stack([windows, slots // rows_per_partition]), axis=1)
        self._needed: dict[int, list[int]] = {}  # partitions of each window
        for window, partition in pairs.T.tolist():
            self._needed.setdefault(window, []).append(partition)
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="cache-window")
        self.held: dict[int, Future[Arrays]] = {}

    def gather(self, positions: np.ndarray) -> Arrays:
        """The rows at some positions; their windows come in ascending order from call to call."""
        now, last = int(self._windows[positions].min()), int(self._windows[positions].max())
        wanted = [p for window in range(now, last + 2) for p in self._needed.get(window, [])]
        for partition in self.held.keys() - set(wanted):
            del self.held[partition]
        for partition in wanted:
            if partition not in self.held:
                self.held[partition] = self._pool.submit(self._read, partition)
        return gather(lambda partition: self.held[partition].result(), self._slots[positions], self._rows_per_partition)

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=True, cancel_futures=True)
