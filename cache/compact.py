"""Copy a store without the rows that no data set has any more, and without half-empty partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sur.cache.errors import CacheError
from sur.cache.format.spec import which_ids
from sur.cache.manifest import Manifest
from sur.cache.storage.base import same_or_inside
from sur.cache.store import Store


def require_apart(source: str | Path, target: str | Path) -> None:
    """Check that neither of two locations of stores is, or lies in, the other: `compact` needs it.

    Raises:
        CacheError: they are not apart; links, `..` and doubled slashes are seen through.
    """
    if same_or_inside(target, source) or same_or_inside(source, target):
        raise CacheError(
            f"{source} cannot be compacted into itself: {target} is the same place, or lies in it or around it. Name a "
            "folder or URL apart from it."
        )


def compact(
    source: Store,
    target: Store,
    manifests: Sequence[Manifest] = (),
    progress: Callable[[str, int], None] | None = None,
) -> int:
    """Copy the rows that the data sets of `source` have now into `target`; returns how many rows were left behind.

    Rows of `manifests` are copied too, so that their trainings can be repeated.

    Values are copied unchanged and checked on the way; nothing is encoded. A partition of `target` is left for the next
    extraction if `source` has not extracted all of its rows. A copy that was interrupted goes on where it stopped.
    `progress` is called with feature and partition after each partition.

    Raises:
        IdentityMismatch: `target` has a feature of the same name that was made differently.
        CacheError: `target` is `source`, in it, around it, or has other rows; or `source` lacks rows of a manifest.
        CorruptStore: a value in `source` does not match its checksum, or a data set, declaration or row of it is lost.
    """
    require_apart(source.path, target.path)
    features = source.features(strict=True)
    names = source.datasets()
    members = {name: source.members(name) for name in names}
    copied = np.any(list(members.values()), axis=0) if names else source.filled()
    ids = source.row_ids()
    for manifest in manifests:
        named = which_ids(ids, (row.tobytes() for row in manifest.ids))
        if int(named.sum()) < len(manifest.ids):
            raise CacheError(
                f"{source.path} lacks {len(manifest.ids) - int(named.sum())} of the {len(manifest.ids)} rows of a "
                "manifest, so its training cannot be repeated from it. Leave that manifest out."
            )
        copied |= named
    stored = source.rows()
    slot_of = {record.id: record.slot for record in stored}
    places = {name: source.places(name) for name in names}
    now = {slot: place for moved in places.values() for slot, place in moved.items()}
    records = {
        record.id: replace(record, image=now.get(record.slot, record.image)) for record in stored if copied[record.slot]
    }
    if foreign := [row.id.hex() for row in target.rows() if row.id not in slot_of]:
        raise CacheError(
            f"{target.path} holds {len(foreign)} rows that {source.path} has not (first: {foreign[0]}); "
            "name a new store."
        )
    target.add_rows(records.values())
    for spec in features.values():
        target.ensure_feature(spec)
        done = {receipt.partition for receipt in source.receipts(spec.name) if receipt is not None}
        reasons = source.missing(spec.name)
        for partition in target.pending(spec.name):
            slots = np.array([slot_of[row.id] for row in target.rows(partition)], dtype=np.int64)
            if not set((slots // source.rows_per_partition).tolist()) <= done:
                continue
            values = source.read(spec.name, slots)
            missing = {place: reasons[slot] for place, slot in enumerate(slots.tolist()) if slot in reasons}
            target.write_partition(spec.name, partition, values, missing, {"copied": len(slots)})
            if progress is not None:
                progress(spec.name, partition)
    for spec in source.assets().values():
        if not target.has_asset(spec) and source.has_asset(spec):
            target.write_asset(spec, source.read_asset(spec.name))
    for name, mask in members.items():
        current = {record.id: places[name].get(record.slot, record.image) for record in stored if mask[record.slot]}
        target.set_members(name, current, current)
    return source.n_rows - len(records)
