"""Which rows of a store a loader serves, and the manifest that records them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sur.cache.errors import CacheError, IncompleteFeature
from sur.cache.format.receipts import Receipt
from sur.cache.format.spec import json_digest, which_ids
from sur.cache.manifest import Manifest
from sur.cache.sampling import Split, in_split
from sur.cache.store import Store


@dataclass(frozen=True)
class Selection:
    """Rows of a store by data set, split, exclusion and manifest.

    dataset: Only rows that this data set has now; None for all rows of the store.
    split, validation_fraction: Part of the rows, and the fraction of them that belongs to the validation split.
    manifest: Exactly the rows that it names, whatever happened to the data sets since; `dataset` and `exclude` do not
        apply to them.
    exclude: Ids of rows to leave out.
    """

    dataset: str | None = None
    split: Split = "train"
    validation_fraction: float = 0.05
    manifest: Manifest | None = None
    exclude: Collection[bytes] = ()


@dataclass(frozen=True)
class SelectedRows:
    """Rows that have every required feature, of all splits; `in_split` marks those of the selected one.

    slots: int64 (rows,).
    ids: uint8 (rows, 16).
    groups: Partition that each row is in, or was in when the manifest was made, int64 (rows,).
    in_split: bool (rows,).
    receipts: By feature and partition, for the partitions that hold candidate rows.
    present: Which slots of the store have a value, by feature, bool (slots of the store,).
    """

    slots: np.ndarray
    ids: np.ndarray
    groups: np.ndarray
    in_split: np.ndarray
    receipts: Mapping[str, Mapping[int, Receipt]]
    present: Mapping[str, np.ndarray]


def select_rows(store: Store, required: Sequence[str], optional: Sequence[str], selection: Selection) -> SelectedRows:
    """Rows of a selection that have a value of every feature in `required`.

    Raises:
        IncompleteFeature: a partition of a feature in `required` or `optional` is not done.
        CacheError: the data set does not exist, or rows of the manifest are not in the store.
    """
    ids = store.row_ids()
    chosen = _candidates(store, ids, selection)
    partitions = np.unique(np.flatnonzero(chosen) // store.rows_per_partition).tolist()
    receipts = {name: _complete_receipts(store, name, partitions) for name in (*required, *optional)}
    present = {name: _present_slots(store, receipts[name]) for name in receipts}
    for name in required:
        chosen &= present[name]
    slots = np.flatnonzero(chosen)
    groups = slots // store.rows_per_partition
    if (manifest := selection.manifest) is not None:
        slots, groups = manifest.slots_in(ids, slots, str(store.path)), manifest.groups
    split = in_split(ids[slots], selection.split, selection.validation_fraction)
    return SelectedRows(slots, ids[slots], groups, split, receipts, present)


def record_manifest(store: Store, rows: SelectedRows, window: int) -> Manifest:
    """The manifest of these rows and of their values, for an order with this window."""
    return Manifest(rows.ids, rows.groups, window, {name: _values_digest(store, name, rows) for name in rows.receipts})


def require_same_values(store: Store, manifest: Manifest, recorded: Manifest) -> None:
    """Compare the values that a manifest names with those `recorded` from the store.

    Raises:
        CacheError: values differ; the message names their features.
    """
    digests = recorded.features
    changed = [name for name, digest in digests.items() if manifest.features.get(name, digest) != digest]
    if changed:
        raise CacheError(
            f"The values of {', '.join(changed)} in {store.path} are not those of the manifest; use the store "
            "that it came from, or leave the manifest out to train on these values."
        )


def _candidates(store: Store, ids: np.ndarray, selection: Selection) -> np.ndarray:
    """Slots whose rows are selected, whatever features they have: bool (slots of the store,)."""
    filled = store.filled()
    if selection.manifest is not None:
        return filled & which_ids(ids, (row.tobytes() for row in selection.manifest.ids))
    if selection.dataset is not None:
        filled &= store.members(selection.dataset)
    if selection.exclude:
        filled &= ~which_ids(ids, selection.exclude)
    return filled


def _complete_receipts(store: Store, feature: str, partitions: Sequence[int]) -> dict[int, Receipt]:
    """Receipts of these partitions. Raises IncompleteFeature when one is not done."""
    receipts = zip(partitions, store.receipts(feature, partitions), strict=True)
    done = {partition: receipt for partition, receipt in receipts if receipt is not None}
    if len(done) < len(partitions):
        raise IncompleteFeature(
            f"{feature!r}: {len(done)} of {len(partitions)} partitions are done. Finish the extraction."
        )
    return done


def _present_slots(store: Store, receipts: Mapping[int, Receipt]) -> np.ndarray:
    """Slots that have a value, in the partitions of these receipts: bool (slots of the store,)."""
    filled, per_partition = store.filled(), store.rows_per_partition
    present = np.zeros_like(filled)
    for partition, receipt in receipts.items():
        first = partition * per_partition
        present[first : first + per_partition] = filled[first : first + per_partition]
        present[[first + row for row in receipt.missing]] = False
    return present


def _values_digest(store: Store, feature: str, rows: SelectedRows) -> str:
    """Digest of a feature's identity and of its values at these rows, in order; partitions do not matter to it.

    It covers the values by their checksums. Values that are too small for a checksum of their own are covered directly.
    """
    per_partition, receipts = store.rows_per_partition, rows.receipts[feature]
    slots = rows.slots[rows.present[feature][rows.slots]]
    partitions, places = np.divmod(slots, per_partition)
    digests = {}
    for array, layout in store.layouts(feature).items():
        if layout.rows_per_chunk > 1:
            values = store.read(feature, slots)[array]
        else:
            crcs = np.zeros((max(receipts, default=-1) + 1, per_partition), dtype="<u4")
            for partition, receipt in receipts.items():
                crcs[partition] = receipt.shards[array].crcs()
            values = crcs[partitions, places]
        digests[array] = hashlib.sha256(values.tobytes()).hexdigest()
    return json_digest({"identity": store.spec(feature).identity_digest, "values": digests})
