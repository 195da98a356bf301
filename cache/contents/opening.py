"""Make or open a store: its storage, and the number of rows in its partitions."""

from __future__ import annotations

from pathlib import Path

from sur.cache.contents.rows import Rows
from sur.cache.errors import CacheError
from sur.cache.format.metadata import read_metadata
from sur.cache.format.receipts import ROW_RECEIPTS, receipt_numbers
from sur.cache.format.root import read_root, recover_root, require_free, write_root
from sur.cache.storage.base import Storage, open_storage

Opened = tuple[Storage, int]  # the storage and rows_per_partition


def create_store(path: str | Path, rows_per_partition: int) -> Opened:
    """Write an empty store. Raises CacheError when something is at `path` already."""
    storage = open_storage(path)
    with storage.locked("", wait=True):
        if read_metadata(storage, "") is not None:
            raise CacheError(f"{path} holds a store already; open it, or choose another path.")
        return _write_empty(storage, rows_per_partition)


def open_store(path: str | Path, recover: bool) -> Opened:
    """Open an existing store; `recover` also opens one with a damaged zarr.json."""
    storage = open_storage(path)
    recovered = recover_root(storage) if recover else None
    return storage, read_root(storage) if recovered is None else recovered


def open_or_create_store(path: str | Path, rows_per_partition: int) -> Opened:
    """Open a store and bring the metadata of its groups up to date, or write an empty one."""
    storage = open_storage(path)
    with storage.locked("", wait=True):
        if read_metadata(storage, "") is None:
            return _write_empty(storage, rows_per_partition)
        size = read_root(storage)
        write_root(storage, size)
    return storage, size


def store_exists(storage: Storage) -> bool:
    """Whether there is a store, be its zarr.json lost or not."""
    return read_metadata(storage, "") is not None or bool(receipt_numbers(storage, ROW_RECEIPTS))


def _write_empty(storage: Storage, rows_per_partition: int) -> Opened:
    require_free(storage, rows_per_partition)
    Rows(storage, rows_per_partition).publish_metadata()
    write_root(storage, rows_per_partition)
    return storage, rows_per_partition
