"""Batches of features as tensors, in an order that is a pure function of (seed, epoch, rows)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from sur.cache.errors import NoRows
from sur.cache.format.dtypes import to_torch
from sur.cache.manifest import Manifest
from sur.cache.readers import Arrays, FeatureRows, Reader, default_reader
from sur.cache.sampling import Order, epoch_order, rank_share
from sur.cache.selection import Selection, record_manifest, require_same_values, select_rows
from sur.cache.store import Store
from sur.cache.threads import prefetch

if TYPE_CHECKING:
    import torch

WINDOW = 8  # partitions that are mixed at a time where single rows are expensive to read
AHEAD = 2  # batches that are made before they are asked for
_TRAINING_ROWS, _ONE_PROCESS = Selection(), Order()
_NO_ROWS = "See which feature lacks values (`sur inspect`), data.exclude and the share held back for validation"


@dataclass(frozen=True)
class Batch:
    """One batch of B rows, on the CPU. On a machine with a GPU its tensors lie in pinned memory.

    epoch, offset: Number of the epoch, and of the batch in it.
    ids: uint8 (B, 16).
    slots: int64 (B,).
    arrays: By "<feature>/<array>", in the stored dtype, (B, *row shape).
    present: By feature, bool (B,): False where a row has no value of an optional feature. Its arrays are zero there.
    """

    epoch: int
    offset: int
    ids: np.ndarray
    slots: np.ndarray
    arrays: Mapping[str, torch.Tensor]
    present: Mapping[str, torch.Tensor]


class Loader:
    """Serves the rows of a selection that have every feature of `features`, batch by batch.

    Rows without a value of a feature in `optional` are served too, and marked. Every partition of all these features
    must be done, so that a missing value is final.

    `batch_size` counts the rows of one rank; every rank gets equally many batches. The state is (epoch, offset):
    `batches(epoch, offset)` goes on exactly there, at once.

    `reader` is a class of readers.py: Resident, Windowed or RowWise. By default it is Resident if the rows fit in a
    quarter of the available memory, else Windowed if the order has a window, else RowWise. It changes no value and no
    order.

    Raises:
        IncompleteFeature: a feature is not extracted to its end.
        NoRows: the selection has no full batch.
        CacheError: rows or values of the manifest are not in the store.
    """

    def __init__(
        self,
        store: Store,
        features: Sequence[str],
        *,
        batch_size: int,
        optional: Sequence[str] = (),
        selection: Selection = _TRAINING_ROWS,
        order: Order = _ONE_PROCESS,
        reader: type[Reader] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"Expected batch_size >= 1, got {batch_size}.")
        optional = [name for name in optional if name not in features]
        self.store, self.batch_size, self.features = store, batch_size, (*features, *optional)
        self._specs = {name: store.spec(name) for name in self.features}
        self._dtypes = {f"{f}/{a}": array.dtype for f, spec in self._specs.items() for a, array in spec.arrays.items()}
        self._rows = select_rows(store, features, optional, selection)
        self.slots = self._rows.slots[self._rows.in_split]
        self.ids = self._rows.ids[self._rows.in_split]
        self._groups = self._rows.groups[self._rows.in_split]
        self._window = self._choose_window(order, selection.manifest)
        self.order = replace(order, window=self._window)
        self._require_a_batch(features, selection)
        if selection.manifest is not None:
            require_same_values(store, selection.manifest, self.manifest)
        rows = FeatureRows(store, self._specs, self.slots, self._rows.present)
        self._reader = (reader or default_reader(rows, self._window))(rows)

    @property
    def n_rows(self) -> int:
        """Rows of the split with every required feature."""
        return len(self.slots)

    @property
    def manifest_slots(self) -> np.ndarray:
        """Slots of the manifest's rows, of all splits in order: int64 (rows,)."""
        return self._rows.slots

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this rank in an epoch; the same number for every rank."""
        full, rest = divmod(self.n_rows, self.batch_size * self.order.world_size)
        return full + (not self.order.drop_last and rest >= self.order.world_size)

    def __len__(self) -> int:
        return self.batches_per_epoch

    @cached_property
    def manifest(self) -> Manifest:
        """The rows of all splits and their values, to read the same again later."""
        return record_manifest(self.store, self._rows, self._window)

    def batches(self, epoch: int = 0, offset: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `offset` on; up to `AHEAD` of them are made in advance."""
        order, windows = epoch_order(self._groups, self.order.seed, epoch, self._window)
        with self._reader.epoch(windows) as read:
            make, numbers = self._batch_maker(epoch, order, read), range(offset, len(self))
            threads = self._reader.threads
            yield from prefetch(make, numbers, AHEAD, threads) if threads else map(make, numbers)

    def forever(self, epoch: int = 0, offset: int = 0) -> Iterator[Batch]:
        """Batches without end, epoch after epoch, from (epoch, offset) on."""
        for number in count(epoch):
            yield from self.batches(number, offset if number == epoch else 0)

    def _batch_maker(
        self, epoch: int, order: np.ndarray, read: Callable[[np.ndarray], Arrays]
    ) -> Callable[[int], Batch]:
        """A function from the number of a batch to the batch."""
        rank, world_size = self.order.rank, self.order.world_size
        size = self.batch_size * world_size

        def make(number: int) -> Batch:
            positions = rank_share(order[number * size : (number + 1) * size], rank, world_size)
            slots = self.slots[positions]
            tensors = {key: _pinned(to_torch(values, self._dtypes[key])) for key, values in read(positions).items()}
            present = {name: _pinned(to_torch(mask[slots], "bool")) for name, mask in self._rows.present.items()}
            return Batch(epoch, number, self.ids[positions], slots, tensors, present)

        return make

    def _choose_window(self, order: Order, manifest: Manifest | None) -> int:
        if order.window is not None:
            return order.window
        if manifest is not None:
            return manifest.window
        packed = any(array.packed for spec in self._specs.values() for array in spec.arrays.values())
        return WINDOW * (packed or not self.store.random_reads)

    def _require_a_batch(self, features: Sequence[str], selection: Selection) -> None:
        if len(self) == 0:
            most = self.n_rows // self.order.world_size
            remedy = f"Set a batch size (train.batch_size) of at most {most}" if most else _NO_ROWS
            raise NoRows(
                f"No full batch: {self.n_rows} of {self.store.n_rows} rows are in split {selection.split!r} and have "
                f"all of {list(features)}, and a batch takes {self.batch_size} x {self.order.world_size}. "
                f"{remedy}, or extract more rows."
            )


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return tensor.pin_memory() if torch.cuda.is_available() else tensor
