"""Batches of features as tensors, in an order that is a pure function of (seed, epoch, rows)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sur.cache.errors import CacheError, IncompleteFeature, NoRows
from sur.cache.format.dtypes import to_torch
from sur.cache.format.receipts import Receipt
from sur.cache.format.spec import json_digest, which_ids
from sur.cache.manifest import Manifest
from sur.cache.sampling import Split, Window, gather, in_split, permutation, rank_share, windowed_permutation
from sur.cache.threads import prefetch

if TYPE_CHECKING:
    import torch

    from sur.cache.store import Store

RESIDENT_SHARE = 0.25  # of free memory
WINDOW = 8  # partitions mixed at a time where single rows are dear to read
AHEAD = 2  # batches made before they are asked for


@dataclass(frozen=True)
class Batch:
    """Rows of one batch, B of them.

    `offset` is its number in the epoch. `ids` uint8 (B, 16), `slots` int64 (B,), `arrays` by
    "<feature>/<array>" in their stored dtype (B, *row shape), `present` by feature, bool (B,): False where
    an optional feature has no value (its arrays are zero there). On a machine with a GPU the tensors are pinned.
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
    either must be done: a row without a value is known to have none). With `dataset`, only rows that this data set has
    now are served, without those whose ids are in `exclude`; with `manifest`, just the rows that it names, whatever
    became of them since and whatever `exclude` says.

    `batch_size` counts the rows of one rank; every rank gets as many. State is (epoch, offset):
    `batches(epoch, offset)` goes on exactly there, at once.

    Three ways to read, all giving right numbers or an error: `resident` holds all rows in memory (default: if they
    fit in a quarter of what is free); with a `window`, whole partitions are read and so many of them mixed in memory
    at a time (default where the store is remote or a feature packed; about two windows are held); else rows are read
    singly. In the first two every chunk is checked against its receipt when it is read, in the last on its first
    touch.

    Raises:
        IncompleteFeature: a feature is not extracted to its end.
        NoRows: no row is left.
        CacheError: rows or values of the manifest are not in the store.
    """

    def __init__(
        self,
        store: Store,
        features: Sequence[str],
        *,
        optional: Sequence[str] = (),
        dataset: str | None = None,
        manifest: Manifest | None = None,
        exclude: Collection[bytes] = (),
        batch_size: int,
        seed: int = 0,
        split: Split = "train",
        validation_fraction: float = 0.05,
        resident: bool | None = None,
        window: int | None = None,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or seed < 0 or not 0 <= rank < world_size or (window is not None and window < 0):
            raise ValueError(
                "Expected batch_size >= 1, seed >= 0, window >= 0 and 0 <= rank < world_size, "
                f"got {batch_size}, {seed}, {window}, {rank} and {world_size}."
            )
        self.store, self.batch_size, self.seed, self.drop_last = store, batch_size, seed, drop_last
        self.rank, self.world_size = rank, world_size
        self.features = (*features, *(name for name in optional if name not in features))
        self._specs = {name: store.spec(name) for name in self.features}
        self._dtypes = {f"{f}/{a}": array.dtype for f, spec in self._specs.items() for a, array in spec.arrays.items()}
        ids, has = store.row_ids(), store.filled()
        if manifest is not None:
            has &= which_ids(ids, (row.tobytes() for row in manifest.ids))
        elif dataset is not None:
            has &= store.members(dataset)
        if exclude and manifest is None:
            has &= ~which_ids(ids, exclude)
        needed = np.unique(np.flatnonzero(has) // store.rows_per_partition).tolist()
        receipts = {name: _complete(store, name, needed) for name in self.features}
        self._present = {name: _present(store, receipts[name]) for name in self.features}
        for name in features:
            has &= self._present[name]
        every = np.flatnonzero(has)
        if manifest is not None:
            every = manifest.slots_in(ids, every, str(store.path))
        chosen = in_split(ids[every], split, validation_fraction)
        self.manifest_slots, self.slots = every, every[chosen]
        self.ids = ids[self.slots]
        if len(self) == 0:
            raise NoRows(
                f"No full batch: {len(self.slots)} of {store.n_rows} rows are in split {split!r} and have "
                f"all of {list(features)}, and a batch takes {batch_size} x {world_size}."
            )
        packed = any(array.packed for spec in self._specs.values() for array in spec.arrays.values())
        if window is None:
            window = manifest.window if manifest is not None else WINDOW * (packed or not store.random_reads)
        self.window = window
        groups = every // store.rows_per_partition if manifest is None else manifest.groups
        self._groups = groups[chosen]
        self._served = (ids[every], groups, receipts)
        if manifest is not None:
            self._require_values(manifest)
        row_bytes = sum(array.nbytes for spec in self._specs.values() for array in spec.arrays.values())
        if resident is None:
            resident = len(self.slots) * row_bytes <= RESIDENT_SHARE * free_memory()
        self._resident = self._read_all() if resident else None

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

    @cached_property
    def manifest(self) -> Manifest:
        """What this loader reads, of all splits, to read it again later."""
        ids, groups, receipts = self._served
        digests = {name: self._values_digest(name, receipts[name], self.manifest_slots) for name in self.features}
        return Manifest(ids, groups, self.window, digests)

    def _require_values(self, wanted: Manifest) -> None:
        here = self.manifest.features
        changed = [name for name, digest in here.items() if wanted.features.get(name, digest) != digest]
        if changed:
            raise CacheError(
                f"The values of {', '.join(changed)} in {self.store.path} are not those of the manifest; use the store "
                "that it came from, or leave the manifest out to train on these values."
            )

    def batches(self, epoch: int = 0, offset: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `offset` on; `AHEAD` of them are made in the background."""
        if self.window:
            order, windows = windowed_permutation(self._groups, self.seed, epoch, self.window)
        else:
            order, windows = permutation(self.n_rows, self.seed, epoch), None
        if self._resident is not None:
            yield from map(self._batcher(epoch, order, self._from_memory), range(offset, len(self)))
            return
        if windows is None:
            make = self._batcher(epoch, order, lambda positions: self._read(self.slots[positions]))
            yield from prefetch(make, range(offset, len(self)), AHEAD, threads=AHEAD)
            return
        window = Window(self.read_partition, windows, self.slots, self.store.rows_per_partition)
        try:
            yield from prefetch(self._batcher(epoch, order, window.gather), range(offset, len(self)), AHEAD)
        finally:
            window.close()

    def forever(self, epoch: int = 0, offset: int = 0) -> Iterator[Batch]:
        """Batches without end, epoch after epoch, from (epoch, offset) on."""
        for number in count(epoch):
            yield from self.batches(number, offset if number == epoch else 0)

    def _batcher(
        self, epoch: int, order: np.ndarray, read: Callable[[np.ndarray], dict[str, np.ndarray]]
    ) -> Callable[[int], Batch]:
        """The function that makes the batch of a number."""
        size = self.batch_size * self.world_size

        def make(number: int) -> Batch:
            positions = rank_share(order[number * size : (number + 1) * size], self.rank, self.world_size)
            slots = self.slots[positions]
            tensors = {key: _pinned(to_torch(values, self._dtypes[key])) for key, values in read(positions).items()}
            present = {name: _pinned(to_torch(mask[slots], "bool")) for name, mask in self._present.items()}
            return Batch(epoch, number, self.ids[positions], slots, tensors, present)

        return make

    def _from_memory(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        assert self._resident is not None
        return {key: np.take(values, positions, axis=0) for key, values in self._resident.items()}

    def _read(self, slots: np.ndarray) -> dict[str, np.ndarray]:
        arrays = {}
        for name, spec in self._specs.items():
            here = self._present[name][slots]
            values = self.store.read(name, slots[here])
            for array in spec.arrays:
                arrays[f"{name}/{array}"] = values[array] if here.all() else _spread(values[array], here)
        return arrays

    def _read_all(self) -> dict[str, np.ndarray]:
        """Every row that is served, read partition by partition."""
        return gather(self.read_partition, self.slots, self.store.rows_per_partition)

    def read_partition(self, partition: int) -> dict[str, np.ndarray]:
        """All features of a partition's rows, by "<feature>/<array>"; every chunk is checked."""
        read = {name: self.store.read_partition(name, partition) for name in self.features}
        return {f"{name}/{array}": values for name, arrays in read.items() for array, values in arrays.items()}

    def _values_digest(self, feature: str, receipts: Mapping[int, Receipt], slots: np.ndarray) -> str:
        """Digest of a feature's identity and of its values at `slots`, in order, wherever they lie.

        Values come in by their checksums, those too small for one of their own as they are.
        """
        spec, per_partition = self._specs[feature], self.store.rows_per_partition
        slots = slots[self._present[feature][slots]]
        partitions, places = np.divmod(slots, per_partition)
        digests = {}
        for array, layout in self.store.layouts(feature).items():
            if layout.rows_per_chunk > 1:
                values = self.store.read(feature, slots)[array]
            else:
                crcs = np.zeros((max(receipts, default=-1) + 1, per_partition), dtype="<u4")
                for partition, receipt in receipts.items():
                    crcs[partition] = receipt.shards[array].crcs()
                values = crcs[partitions, places]
            digests[array] = hashlib.sha256(values.tobytes()).hexdigest()
        return json_digest({"identity": spec.identity_digest, "values": digests})


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


def _complete(store: Store, feature: str, partitions: Sequence[int]) -> dict[int, Receipt]:
    """Receipts of these partitions. Raises IncompleteFeature when one is not done."""
    receipts = dict(zip(partitions, store.receipts(feature, partitions), strict=True))
    found = {partition: receipt for partition, receipt in receipts.items() if receipt is not None}
    if len(found) < len(receipts):
        raise IncompleteFeature(
            f"{feature!r}: {len(found)} of {len(receipts)} partitions are done. Finish the extraction."
        )
    return found


def _present(store: Store, receipts: Mapping[int, Receipt]) -> np.ndarray:
    """Slots that have a value, of the partitions whose receipts are given, bool (slots,)."""
    filled, per_partition = store.filled(), store.rows_per_partition
    present = np.zeros_like(filled)
    for partition, receipt in receipts.items():
        first = partition * per_partition
        present[first : first + per_partition] = filled[first : first + per_partition]
        present[[first + row for row in receipt.missing]] = False
    return present


def _spread(values: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Values (n, ...) put where `here` (m,) is True, zeros elsewhere: (m, ...)."""
    out = np.zeros((len(here), *values.shape[1:]), dtype=values.dtype)
    out[here] = values
    return out


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return tensor.pin_memory() if torch.cuda.is_available() else tensor
