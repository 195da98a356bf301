"""The rows that each data set has now: named sets of rows, each replaced as a whole.

Rows are never taken out of partitions. A row that was removed from its source, or edited into another row, leaves the
set, and the loader skips it. A set is stored in the attributes of a Zarr group: one bit for each slot, and the place of
every picture that has moved, since a row is known by its content and its first place may be out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sur.cache.contents.rows import Rows
from sur.cache.errors import BadValues, CacheError, CorruptStore, UnknownFeature
from sur.cache.format import metadata
from sur.cache.format.root import listed_datasets, write_root
from sur.cache.format.spec import which_ids
from sur.cache.storage.base import Storage, join

FOLDER = "datasets"
Places = Mapping[bytes, str]  # of pictures, by row id
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def dataset_names(storage: Storage) -> list[str]:
    """Names of the sets, those included that the store lists and that are gone."""
    return sorted({*_stored(storage), *filter(_NAME.fullmatch, listed_datasets(storage))})


def _stored(storage: Storage) -> list[str]:
    names = filter(_NAME.fullmatch, storage.folders(FOLDER))
    return [name for name in names if storage.size(join(FOLDER, name, metadata.FILE)) is not None]


def read_members(storage: Storage, rows: Rows, name: str) -> np.ndarray:
    """Which slots belong to a set, bool (slots,).

    Raises:
        CacheError: no such set; the message names those that exist.
        CorruptStore: the set is damaged or gone, or counts slots that the rows do not have.
    """
    directory = join(FOLDER, name)
    recorded = recorded_members(storage, directory, _document(storage, name))
    members = np.zeros(rows.n_slots(), dtype=bool)  # rows are counted after the set is read: a writer adds them before
    if len(recorded) > len(members):
        where = storage.where(join(directory, metadata.FILE))
        raise CorruptStore(f"{where} counts {len(recorded)} slots, but the rows have {len(members)}: rows are lost.")
    members[: len(recorded)] = recorded
    return members


def recorded_members(storage: Storage, directory: str, document: Mapping[str, Any]) -> np.ndarray:
    """Which slots belong to the set that `document` in `directory` records, bool (slots that it counts,).

    Raises:
        CorruptStore: the set is damaged.
    """
    content = metadata.unseal(document["attributes"], storage.where(directory), directory)
    try:
        packed, slots = np.frombuffer(bytes.fromhex(content["members"]), dtype=np.uint8), content["slots"]
        if not 0 <= slots <= 8 * len(packed):
            raise ValueError(f"{slots} slots in {len(packed)} bytes")
        return np.unpackbits(packed, count=slots).astype(bool)
    except (KeyError, TypeError, ValueError) as error:
        where = storage.where(join(directory, metadata.FILE))
        raise CorruptStore(f"{where}: not a data set of this format: {error!r}.") from error


def read_places(storage: Storage, name: str) -> dict[int, str]:
    """Where the pictures of a set are now, by slot, for rows whose picture is not where the row was added.

    Raises: as `read_members`.
    """
    directory = join(FOLDER, name)
    content = metadata.unseal(_document(storage, name)["attributes"], storage.where(directory), directory)
    try:
        return {int(slot): str(place) for slot, place in content.get("places", {}).items()}
    except (AttributeError, ValueError) as error:
        where = storage.where(join(directory, metadata.FILE))
        raise CorruptStore(f"{where}: not a data set of this format: {error!r}.") from error


def write_members(
    storage: Storage, rows: Rows, rows_per_partition: int, name: str, ids: Iterable[bytes], places: Places
) -> tuple[int, int]:
    """Make a set exactly the rows of these ids; returns how many rows left it, and how many it has now.

    places: where the pictures of rows are now, by id; a place that is the stored one costs no byte. The caller holds
    the store's lock.

    Raises:
        BadValues: the name is not valid, or the store has no row with one of the ids.
    """
    if not _NAME.fullmatch(name):
        raise BadValues(f"Data set name {name!r} must match {_NAME.pattern} (lower case, no slash or space).")
    ids = set(ids)
    slot_ids = rows.slot_ids()
    members = which_ids(slot_ids, ids)
    if int(members.sum()) != len(ids):
        raise BadValues(f"Data set {name!r}: {len(ids) - int(members.sum())} of its rows are not in the store.")
    stored, listed = _stored(storage), listed_datasets(storage)
    before = read_members(storage, rows, name) if name in stored else np.zeros_like(members)
    content: dict[str, Any] = {"slots": len(members), "members": np.packbits(members).tobytes().hex()}
    if moved := rows.moved(places):
        content["places"] = moved
    directory = join(FOLDER, name)
    metadata.publish_metadata(storage, directory, metadata.group(metadata.seal(content, directory)))
    if name not in listed and (
        listed or name not in stored
    ):  # the sets of an older store are listed with the first new
        write_root(
            storage, rows_per_partition, {*dataset_names(storage), name}
        )  # last: a reader takes it for lost else
    return int((before & ~members).sum()), int(members.sum())


def drop_members(storage: Storage, rows_per_partition: int, name: str) -> None:
    """Remove a set; its rows stay. The caller holds the store's lock.

    Raises:
        UnknownFeature: there is no such set; the message names what is stored.
    """
    names = dataset_names(storage)
    if name not in names:
        stored = ", ".join([*storage.folders("features"), *storage.folders("assets"), *names]) or "none"
        raise UnknownFeature(f"{storage.location} holds no feature, asset or data set {name!r}. It holds: {stored}.")
    write_root(storage, rows_per_partition, set(names) - {name})
    storage.remove_tree(join(FOLDER, name))


def _document(storage: Storage, name: str) -> dict[str, Any]:
    """The metadata of a set. Raises: as `read_members`."""
    directory = join(FOLDER, name)
    document = metadata.read_metadata(storage, directory)
    if document is None:
        if name in listed_datasets(storage):
            raise CorruptStore(
                f"{storage.where(join(directory, metadata.FILE))} is gone, so nothing tells which rows the data set "
                f"{name!r} has.",
                f"Run the extraction of its rows again, or give it up by `sur drop STORE {name}`.",
            )
        stored = ", ".join(dataset_names(storage)) or "none"
        raise CacheError(
            f"{storage.location} holds no data set {name!r} (it holds: {stored}). Run the extraction of its rows first."
        )
    return document
