"""The store's own metadata: the last file written when a store is made, and the first one read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

from sur.cache.errors import BadValues, CacheError, CorruptStore, NewerFormat
from sur.cache.format import metadata
from sur.cache.format.checksum import CRC_BYTES
from sur.cache.format.receipts import ROW_RECEIPTS, receipt_numbers
from sur.cache.format.spec import ID_BYTES
from sur.cache.storage.base import Storage
from sur.cache.storage.keys import parse_key


def read_root(storage: Storage) -> int:
    """Number of rows in a partition of an existing store.

    Raises:
        CacheError: the location has no store.
        NewerFormat: a newer version wrote it.
        CorruptStore: its zarr.json is damaged.
    """
    document = metadata.read_metadata(storage, "")
    if document is None and receipt_numbers(storage, ROW_RECEIPTS):
        raise CorruptStore(f"{storage.where(metadata.FILE)} is gone, but rows of a store are there.")
    if document is None or "sur_cache" not in document["attributes"]:
        place = storage.location
        exists = isinstance(place, str) or place.exists()
        what = "holds no feature store" if exists else "does not exist, so it holds no feature store"
        raise CacheError(f"{place} {what}. Run an extraction first, or check the path.")
    sealed = document["attributes"]["sur_cache"]
    version = sealed.get("format_version") if isinstance(sealed, dict) else None
    if isinstance(version, int) and version > metadata.FORMAT_VERSION:
        raise NewerFormat(
            f"{storage.location} has format version {version}, this package knows up to {metadata.FORMAT_VERSION}. "
            "Upgrade the package."
        )
    size = metadata.unseal(sealed, str(storage.location)).get("rows_per_partition")
    if not _is_partition_size(size):
        raise CorruptStore(f"{storage.where(metadata.FILE)}: {size!r} is no number of rows in a partition.")
    return size


def _is_partition_size(size: Any) -> TypeGuard[int]:
    return type(size) is int and 0 < size < 2**31


def listed_datasets(storage: Storage) -> tuple[str, ...]:
    """Names of the data sets that the store's metadata list; () where these are damaged or older than the list."""
    try:
        document = metadata.read_metadata(storage, "") or metadata.group()
        names = metadata.unseal(document["attributes"].get("sur_cache"), "").get("datasets", [])
        return tuple(name for name in names if isinstance(name, str))
    except (CorruptStore, TypeError):
        return ()


def version_of(storage: Storage) -> int:
    """Format version in the metadata of a store; the present version where it is not readable."""
    try:
        document = metadata.read_metadata(storage, "") or metadata.group()
        version = document["attributes"]["sur_cache"]["format_version"]
    except (CorruptStore, KeyError, TypeError):
        return metadata.FORMAT_VERSION
    return version if version in range(1, metadata.FORMAT_VERSION) else metadata.FORMAT_VERSION


def write_root(storage: Storage, rows_per_partition: int, datasets: Iterable[str] | None = None) -> None:
    """Write the metadata of all groups and, last, of the root, unless it is right; this upgrades an older store.

    `datasets` are the names of the data sets that it lists, by default those that it has listed.
    """
    names = listed_datasets(storage) if datasets is None else sorted(datasets)
    for name in metadata.GROUPS:
        metadata.publish_metadata(storage, name, metadata.group())
    metadata.publish_metadata(storage, "", metadata.root(rows_per_partition, names))


def require_free(storage: Storage, rows_per_partition: int) -> None:
    """Check that a new store may be made here.

    Raises:
        CacheError: the location contains something else.
        CorruptStore: the location contains a store without its root.
        BadValues: `rows_per_partition` is less than 1.
    """
    if rows_per_partition < 1:
        raise BadValues(f"rows_per_partition must be at least 1, got {rows_per_partition}.")
    for key in storage.files():
        parsed = parse_key(key)
        if parsed is not None and parsed.kind != "metadata":
            raise CorruptStore(f"{storage.where(metadata.FILE)} is gone, but {key!r} of a store is there.")
        if parsed is None and not storage.leftover(key) and not storage.is_lock(key):
            raise CacheError(f"{storage.location} is not empty ({key!r} is not part of a store); choose another path.")


def recover_root(storage: Storage) -> int | None:
    """Number of rows in a partition of a store with a damaged root, by the metadata of `rows/id`; else None."""
    try:
        document = metadata.read_metadata(storage, "")
        metadata.unseal((document or {"attributes": {}})["attributes"].get("sur_cache"), "")
        return None
    except CorruptStore:
        pass
    try:
        ids = metadata.read_metadata(storage, "rows/id")
        size = (ids or {})["chunk_grid"]["configuration"]["chunk_shape"][0]
    except (CorruptStore, LookupError, TypeError):
        return None
    if not _is_partition_size(size):
        return None
    bytes_of_ids = storage.size("rows/id/c.0.0")
    return size if bytes_of_ids in (None, size * ID_BYTES + CRC_BYTES) else None
