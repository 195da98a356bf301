"""Three ways to read the rows of a loader: all of them in memory, windows of partitions, or row by row.

All three give right values or an error. `Resident` and `Windowed` compare every chunk with its receipt whenever they
read it, `RowWise` on the first touch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

from sur.cache.format.spec import FeatureSpec
from sur.cache.store import Store

RESIDENT_SHARE = 0.25  # of the available memory
_PARTITION_READERS = 4  # threads that read the partitions of a window
Arrays = dict[str, np.ndarray]  # by "<feature>/<array>"


class FeatureRows:
    """Values of several features at the rows that a loader serves.

    slots: Slot of each row, int64 (rows,).
    present: Which slots of the store have a value, by feature, bool (slots of the store,).
    """

    def __init__(
        self, store: Store, specs: Mapping[str, FeatureSpec], slots: np.ndarray, present: Mapping[str, np.ndarray]
    ) -> None:
        self.slots = slots
        self.rows_per_partition = store.rows_per_partition
        self._store, self._specs, self._present = store, specs, present

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        row_bytes = sum(array.nbytes for spec in self._specs.values() for array in spec.arrays.values())
        return len(self.slots) * row_bytes

    def at(self, positions: np.ndarray) -> Arrays:
        """Arrays (n, ...) of the rows at `positions`, int64 (n,), read row by row; missing values are zeros."""
        arrays, slots = {}, self.slots[positions]
        for name, spec in self._specs.items():
            present = self._present[name][slots]
            values = self._store.read(name, slots[present])
            for array in spec.arrays:
                arrays[f"{name}/{array}"] = values[array] if present.all() else _spread(values[array], present)
        return arrays

    def partition(self, partition: int) -> Arrays:
        """Arrays of all rows of a partition; every chunk is checked."""
        return {
            f"{name}/{array}": values
            for name in self._specs
            for array, values in self._store.read_partition(name, partition).items()
        }


class Reader(Protocol):
    """A way to read rows. `threads` is how many background threads may read at a time; 0 means the caller's thread."""

    threads: int

    def __init__(self, rows: FeatureRows) -> None: ...

    def epoch(self, windows: np.ndarray | None) -> AbstractContextManager[Callable[[np.ndarray], Arrays]]:
        """A function, for one epoch, from positions, int64 (n,), to the arrays (n, ...) of the rows there.

        windows: Window of each row, int64 (rows,); None where the order of the epoch has none.
        """
        ...


class Resident:
    """Holds all rows in memory; they are read partition by partition when the reader is made."""

    threads = 0

    def __init__(self, rows: FeatureRows) -> None:
        self._arrays = gather(rows.partition, rows.slots, rows.rows_per_partition)

    def epoch(self, windows: np.ndarray | None) -> AbstractContextManager[Callable[[np.ndarray], Arrays]]:
        """See `Reader`."""
        return nullcontext(self._take)

    def _take(self, positions: np.ndarray) -> Arrays:
        return {key: np.take(values, positions, axis=0) for key, values in self._arrays.items()}


class RowWise:
    """Reads each row when it is served: cheap for raw features on a local disk."""

    threads = 2

    def __init__(self, rows: FeatureRows) -> None:
        self._rows = rows

    def epoch(self, windows: np.ndarray | None) -> AbstractContextManager[Callable[[np.ndarray], Arrays]]:
        """See `Reader`."""
        return nullcontext(self._rows.at)


class Windowed:
    """Reads whole partitions and holds about two windows of them. The order must have windows."""

    threads = 1

    def __init__(self, rows: FeatureRows) -> None:
        self._rows = rows

    @contextmanager
    def epoch(self, windows: np.ndarray | None) -> Iterator[Callable[[np.ndarray], Arrays]]:
        """See `Reader`."""
        if windows is None:
            raise ValueError("Windowed reads rows in windows, but this order has none; give Order(window=8), say.")
        window = Window(self._rows.partition, windows, self._rows.slots, self._rows.rows_per_partition)
        try:
            yield window.gather
        finally:
            window.close()


class Window:
    """The partitions in memory: those of the window that is served and of the next one.

    windows: Window of each row, int64 (rows,).
    slots: Slot of each row, int64 (rows,).
    """

    def __init__(
        self, read: Callable[[int], Arrays], windows: np.ndarray, slots: np.ndarray, rows_per_partition: int
    ) -> None:
        self._read, self._windows, self._slots = read, windows, slots
        self._rows_per_partition = rows_per_partition
        pairs = np.unique(np.stack([windows, slots // rows_per_partition]), axis=1)
        self._partitions_of: dict[int, list[int]] = {}  # by window
        for window, partition in pairs.T.tolist():
            self._partitions_of.setdefault(window, []).append(partition)
        self._pool = ThreadPoolExecutor(_PARTITION_READERS, thread_name_prefix="cache-window")
        self.partitions: dict[int, Future[Arrays]] = {}

    def gather(self, positions: np.ndarray) -> Arrays:
        """Arrays of the rows at `positions`; from call to call their windows must not descend."""
        first, last = int(self._windows[positions].min()), int(self._windows[positions].max())
        needed = [p for window in range(first, last + 2) for p in self._partitions_of.get(window, [])]
        for partition in self.partitions.keys() - set(needed):
            del self.partitions[partition]
        for partition in needed:
            if partition not in self.partitions:
                self.partitions[partition] = self._pool.submit(self._read, partition)
        return gather(
            lambda partition: self.partitions[partition].result(), self._slots[positions], self._rows_per_partition
        )

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def default_reader(rows: FeatureRows, window: int) -> type[Reader]:
    """`Resident` if the rows fit in a quarter of the available memory, else by the window: `Windowed` or `RowWise`."""
    if rows.nbytes <= RESIDENT_SHARE * available_bytes():
        return Resident
    return Windowed if window else RowWise


def available_bytes() -> int:
    """Bytes of memory that this process can still use, within the limit of its container; 0 if unknown."""
    group = Path("/sys/fs/cgroup")
    free = 0
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (AttributeError, OSError, ValueError):  # another system than Linux, or no limit
        return free
    return min(free, limit)


def gather(read: Callable[[int], Arrays], slots: np.ndarray, rows_per_partition: int) -> Arrays:
    """Arrays (n, ...) of the rows at `slots`, int64 (n,), in this order; `read` gives the arrays of one partition."""
    partitions, places = np.divmod(slots, rows_per_partition)
    order = np.argsort(partitions, kind="stable")
    starts = np.flatnonzero(np.diff(partitions[order], prepend=-1))
    out: Arrays = {}
    for rows in np.split(order, starts[1:]):
        for key, values in read(int(partitions[rows[0]])).items():
            if key not in out:
                out[key] = np.empty((len(slots), *values.shape[1:]), dtype=values.dtype)
            out[key][rows] = values[places[rows]]
    return out


def _spread(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Values (n, ...) at the True places of `present` (m,), zeros elsewhere: (m, ...)."""
    out = np.zeros((len(present), *values.shape[1:]), dtype=values.dtype)
    out[present] = values
    return out
