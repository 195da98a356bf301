"""The store's own metadata: the last file that makes a folder a store, and the first that is read."""

from __future__ import annotations

from sur.cache.errors import BadValues, CacheError, CorruptStore, NewerFormat
from sur.cache.format import metadata
from sur.cache.format.checksum import CRC_BYTES
from sur.cache.format.spec import ID_BYTES
from sur.cache.storage.base import Storage
from sur.cache.storage.keys import parse_key


def read_root(storage: Storage) -> int:
    """Rows in a partition of an existing store.

    Raises:
        CacheError: no store there.
        NewerFormat: it was written by a newer version.
        CorruptStore: its zarr.json is damaged.
    """
    document = metadata.read_metadata(storage, "")
    if document is None or "sur_cache" not in document["attributes"]:
        place = storage.location
        there = isinstance(place, str) or place.exists()
        what = "holds no feature store" if there else "does not exist, so it holds no feature store"
        raise CacheError(f"{place} {what}. Run an extraction first, or check the path.")
    sealed = document["attributes"]["sur_cache"]
    version = sealed.get("format_version") if isinstance(sealed, dict) else None
    if isinstance(version, int) and version > metadata.FORMAT_VERSION:
        raise NewerFormat(
            f"{storage.location} has format version {version}, this package knows up to {metadata.FORMAT_VERSION}. "
            "Upgrade the package."
        )
    return metadata.unseal(sealed, str(storage.location))["rows_per_partition"]


def version_of(storage: Storage) -> int:
    """Format version that a store says it has; the present one where it does not say."""
    try:
        document = metadata.read_metadata(storage, "") or metadata.group()
        version = document["attributes"]["sur_cache"]["format_version"]
    except (CorruptStore, KeyError, TypeError):
        return metadata.FORMAT_VERSION
    return version if version in range(1, metadata.FORMAT_VERSION) else metadata.FORMAT_VERSION


def write_root(storage: Storage, rows_per_partition: int) -> None:
    """Write all groups and, last, the root, where they are not right yet; an older version's store becomes new."""
    for name in metadata.GROUPS:
        metadata.publish_metadata(storage, name, metadata.group())
    metadata.publish_metadata(storage, "", metadata.root(rows_per_partition))


def require_free(storage: Storage, rows_per_partition: int) -> None:
    """Refuse a place for a new store that has something else in it, and partitions without rows.

    Raises:
        CacheError, BadValues
    """
    if rows_per_partition < 1:
        raise BadValues(f"rows_per_partition must be at least 1, got {rows_per_partition}.")
    for key in storage.files():
        if parse_key(key) is None and not storage.leftover(key) and not storage.is_lock(key):
            raise CacheError(f"{storage.location} is not empty ({key!r} is no part of a store); choose another path.")


def recover_root(storage: Storage) -> int | None:
    """Rows in a partition, read off the metadata of `rows/id`; None unless that stands and the root is damaged."""
    try:
        document = metadata.read_metadata(storage, "")
        metadata.unseal((document or {"attributes": {}})["attributes"].get("sur_cache"), "")
        return None
    except CorruptStore:
        pass
    try:
        ids = metadata.read_metadata(storage, "rows/id")
        size = int((ids or {})["chunk_grid"]["configuration"]["chunk_shape"][0])
    except (CorruptStore, KeyError, TypeError, ValueError):
        return None
    bytes_of_ids = storage.size("rows/id/c.0.0")
    return size if bytes_of_ids in (None, size * ID_BYTES + CRC_BYTES) else None
