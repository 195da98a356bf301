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
from sur.cache.errors import BadValues, CacheError
from sur.cache.format import metadata
from sur.cache.format.spec import which_ids
from sur.cache.storage.base import Storage, join

FOLDER = "datasets"
Places = Mapping[bytes, str]  # of pictures, by row id
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def dataset_names(storage: Storage) -> list[str]:
    """Names of the stored sets."""
    names = storage.folders(FOLDER)
    return [name for name in names if storage.size(join(FOLDER, name, metadata.FILE)) is not None]


def read_members(storage: Storage, name: str, n_slots: int) -> np.ndarray:
    """Which slots belong to a set, bool (n_slots,).

    Raises:
        CacheError: no such set; the message names those that exist.
        CorruptStore: the set is damaged.
    """
    content = _content(storage, name)
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(content["members"]), dtype=np.uint8), count=content["slots"])
    members = np.zeros(n_slots, dtype=bool)
    members[: len(bits)] = bits[:n_slots]
    return members


def read_places(storage: Storage, name: str) -> dict[int, str]:
    """Where the pictures of a set are now, by slot, for rows whose picture is not where the row was added.

    Raises: as `read_members`.
    """
    return {int(slot): place for slot, place in _content(storage, name).get("places", {}).items()}


def write_members(storage: Storage, rows: Rows, name: str, ids: Iterable[bytes], places: Places) -> tuple[int, int]:
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
    before = read_members(storage, name, len(slot_ids)) if name in dataset_names(storage) else np.zeros_like(members)
    content: dict[str, Any] = {"slots": len(members), "members": np.packbits(members).tobytes().hex()}
    if moved := rows.moved(places):
        content["places"] = moved
    directory = join(FOLDER, name)
    metadata.publish_metadata(storage, directory, metadata.group(metadata.seal(content, directory)))
    return int((before & ~members).sum()), int(members.sum())


def _content(storage: Storage, name: str) -> dict[str, Any]:
    """A stored set. Raises: as `read_members`."""
    directory = join(FOLDER, name)
    document = metadata.read_metadata(storage, directory)
    if document is None:
        stored = ", ".join(dataset_names(storage)) or "none"
        raise CacheError(
            f"{storage.location} holds no data set {name!r} (it holds: {stored}). Run the extraction of its rows first."
        )
    return metadata.unseal(document["attributes"], storage.where(directory), directory)
