"""Batches of features as tensors, in an order that is a pure function of (seed, epoch, manifest)."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.dtypes import to_torch
from cache.errors import IncompleteFeature, NoRows
from cache.order import Split, in_split, permutation, rank_share
from cache.receipts import Receipt
from cache.records import json_digest

if TYPE_CHECKING:
    import torch

    from cache.store import Store

RESIDENT_SHARE = 0.25  # of free memory


@dataclass(frozen=True)
class Batch:
    """Rows of one batch, B of them.

    `offset` is its number in the epoch. `ids` uint8 (B, 16), `slots` int64 (B,), `arrays` by
    "<feature>/<array>" in their stored dtype (B, *row shape), `present` by feature, bool (B,): False where
    an optional feature has no value (its arrays are zero there).
    """

    epoch: int
    offset: int
    ids: np.ndarray
    slots: np.ndarray
    arrays: Mapping[str, torch.Tensor]
    present: Mapping[str, torch.Tensor]


class Loader:
    """Serves the rows of a split that have every feature asked for.

    Rows without a value of a feature in `features` are skipped, of one in `optional` marked (every partition of
    either must be done: a row without a value is known to have none); with `only`,
    rows whose id is not in it (edited or removed since they were stored) are skipped too. `batch_size`
    counts the rows of one rank; every rank gets as many. State is (epoch, offset): `batches(epoch, offset)`
    goes on exactly there, at once.

    How numbers are kept right: resident (read once into memory) every chunk was checked against its receipt;
    otherwise each chunk is on the first touch.

    Raises:
        IncompleteFeature: a feature is not extracted to its end.
        NoRows: no row is left.
    """

    def __init__(
        self,
        store: Store,
        features: Sequence[str],
        *,
        optional: Sequence[str] = (),
        only: Collection[bytes] | None = None,
        batch_size: int,
        seed: int = 0,
        split: Split = "train",
        validation_fraction: float = 0.05,
        resident: bool | None = None,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or seed < 0 or not 0 <= rank < world_size:
            raise ValueError(
                "Expected batch_size >= 1, seed >= 0 and 0 <= rank < world_size, "
                f"got {batch_size}, {seed}, {rank} and {world_size}."
            )
        self.store, self.batch_size, self.seed, self.drop_last = store, batch_size, seed, drop_last
        self.rank, self.world_size = rank, world_size
        self.features = (*features, *(name for name in optional if name not in features))
        self._specs = {name: store.spec(name) for name in self.features}
        ids, has = store.row_ids(), store.filled()
        receipts = {name: store.receipts(name) for name in self.features}
        self._present = {name: _present(store, receipts[name]) for name in self.features}
        for name in self.features:
            if None in receipts[name]:
                done = sum(receipt is not None for receipt in receipts[name])
                raise IncompleteFeature(
                    f"{name!r}: {done} of {len(receipts[name])} partitions are done. Finish the extraction."
                )
        for name in features:
            has = has & self._present[name]
        if only is not None:
            has = has & np.array([row.tobytes() in only for row in ids], dtype=bool)
        self.slots = np.flatnonzero(has & in_split(ids, split, validation_fraction))
        self.ids = ids[self.slots]
        if len(self) == 0:
            raise NoRows(
                f"No full batch: {len(self.slots)} of {store.n_rows} rows are in split {split!r} and have "
                f"all of {list(features)}, and a batch takes {batch_size} x {world_size}."
            )
        self.manifest_digest = json_digest(
            {
                "ids": self.ids.tobytes().hex(),
                "receipts": {name: [r.digest if r else None for r in receipts[name]] for name in self.features},
            }
        )
        row_bytes = sum(array.nbytes for spec in self._specs.values() for array in spec.arrays.values())
        if resident is None:
            resident = len(self.slots) * row_bytes <= RESIDENT_SHARE * free_memory()
        self._resident = self._read(self.slots) if resident else None

    @property
    def n_rows(self) -> int:
        """Rows of the split with every required feature."""
        return len(self.slots)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this rank in an epoch; the same for every rank."""
        full, rest = divmod(self.n_rows, self.batch_size * self.world_size)
        return full + (not self.drop_last and rest >= self.world_size)

    def __len__(self) -> int:
        return self.batches_per_epoch

    def batches(self, epoch: int = 0, offset: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `offset` on."""
        order = permutation(self.n_rows, self.seed, epoch)
        size = self.batch_size * self.world_size
        for number in range(offset, self.batches_per_epoch):
            share = rank_share(order[number * size : (number + 1) * size], self.rank, self.world_size)
            yield self._batch(epoch, number, share)

    def forever(self, epoch: int = 0, offset: int = 0) -> Iterator[Batch]:
        """Batches without end, epoch after epoch, from (epoch, offset) on."""
        for number in count(epoch):
            yield from self.batches(number, offset if number == epoch else 0)

    def _batch(self, epoch: int, offset: int, positions: np.ndarray) -> Batch:
        slots = self.slots[positions]
        if self._resident is None:
            arrays = self._read(slots)
        else:
            arrays = {key: values[positions] for key, values in self._resident.items()}
        dtypes = {f"{f}/{a}": array.dtype for f, spec in self._specs.items() for a, array in spec.arrays.items()}
        tensors = {key: to_torch(values, dtypes[key]) for key, values in arrays.items()}
        present = {name: to_torch(mask[slots], "bool") for name, mask in self._present.items()}
        return Batch(epoch, offset, self.ids[positions], slots, tensors, present)

    def _read(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        arrays = {}
        for name, spec in self._specs.items():
            here = self._present[name][slots]
            values = self.store.read(name, slots[here])
            for array in spec.arrays:
                arrays[f"{name}/{array}"] = values[array] if here.all() else _spread(values[array], here)
        return arrays


def free_memory() -> int:
    """Bytes that can still be used, the container's limit considered."""
    group = Path("/sys/fs/cgroup")
    free = 0
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, limit)


def _present(store: Store, receipts: Sequence[Receipt | None]) -> np.ndarray:
    """Slots that have a value, bool (slots,)."""
    present = store.filled()
    for partition, receipt in enumerate(receipts):
        first = partition * store.rows_per_partition
        if receipt is None:
            present[first : first + store.rows_per_partition] = False
        else:
            present[[first + row for row in receipt.missing]] = False
    return present


def _spread(values: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Values (n, ...) put where `here` (m,) is True, zeros elsewhere: (m, ...)."""
    out = np.zeros((len(here), *values.shape[1:]), dtype=values.dtype)
    out[here] = values
    return out
