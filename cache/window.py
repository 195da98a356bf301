"""Whole partitions in memory, some at a time, where single rows are dear to read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

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
