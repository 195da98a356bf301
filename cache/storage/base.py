"""Files of a store by key: one small protocol for a local disk (local.py) and object storage (bucket.py).

A key is a file's path inside the store, with "/" between its parts; "" stands for the store's own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from sur.cache.errors import CacheError

T = TypeVar("T")


class OpenFile(Protocol):
    """A file open for reads by position into contiguous bytes; threads may share it. Its last user closes it."""

    size: int

    def read_now(self, target: np.ndarray, offset: int) -> bool:
        """Fill `target` from `offset` on if the bytes are in memory; else have them fetched, and return False."""
        ...

    def read_into(self, target: np.ndarray, offset: int) -> bool:
        """Fill `target` from `offset` on; returns True. Raises CorruptStore if the file is too short."""
        ...


class Storage(Protocol):
    """Files by key. A file survives a kill once `publish` has returned, and no reader sees it in part."""

    random_reads: bool  # whether reading single rows in random order is cheap

    @property
    def max_open_files(self) -> int:
        """Number of files that random reads may keep open in this process."""
        ...

    @property
    def location(self) -> str | Path:
        """Folder or URL, as the user gave it."""
        ...

    def where(self, key: str) -> str:
        """Path or URL of a file, for messages."""
        ...

    def read(self, key: str) -> bytes | None:
        """Content of a file; None if it does not exist."""
        ...

    def open(self, key: str, scattered: bool = False) -> OpenFile:
        """A file for positioned reads; `scattered`: in random order. Raises FileNotFoundError."""
        ...

    def size(self, key: str) -> int | None:
        """Size of a file in bytes; None if it does not exist."""
        ...

    def publish(self, key: str, *pieces: bytes | memoryview) -> None:
        """Write a file of these pieces, one after the other: all or nothing, and durably.

        Raises DiskFull, NotWritable, or CorruptStore if other bytes are read back.
        """
        ...

    def map(self, work: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
        """Results of `work`, which reads files, in the order of `numbers`; a remote storage runs several at a time."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file, durably; nothing happens if it does not exist."""
        ...

    def remove_tree(self, folder: str) -> None:
        """Remove everything below a folder."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted; [] if it does not exist."""
        ...

    def files(self, folder: str = "") -> Iterator[str]:
        """Keys of all files below a folder, sorted."""
        ...

    def locked(self, folder: str, wait: bool) -> AbstractContextManager[bool]:
        """Hold the exclusive lock of a folder during a block; yields False if another holds it, unless `wait`.

        No lock outlives its holder: the lock of a dead process is free at once (disk) or after a while (bucket).
        """
        ...

    def busy(self, folder: str) -> bool:
        """Whether a process holds the lock of a folder now."""
        ...

    def clear_leftovers(self, folder: str) -> None:
        """Remove the temporary files of interrupted writes below a folder."""
        ...

    def leftover(self, key: str) -> bool:
        """Whether a file is the temporary file of an interrupted write of this store."""
        ...

    def is_lock(self, key: str) -> bool:
        """Whether a file is a lock, be its holder alive or dead."""
        ...


def open_storage(location: str | Path) -> Storage:
    """The storage at a local path or a URL (s3://bucket/prefix, gs://, az://).

    Raises CacheError for a URL of another kind, or when the extra `remote` is not installed.
    """
    location = store_location(location)
    if isinstance(location, str):
        try:
            from sur.cache.storage.bucket import BucketStorage
        except ModuleNotFoundError as error:
            raise CacheError(
                f"{location} is in object storage, which needs the package obstore: pip install obstore."
            ) from error

        return BucketStorage(location)
    from sur.cache.storage.local import LocalStorage

    return LocalStorage(location)


def store_location(text: str | Path) -> str | Path:
    """The location that a user wrote: a URL stays text, everything else becomes a path."""
    return text if isinstance(text, str) and "://" in text else Path(text)


def join(*parts: str) -> str:
    """A key of these parts, with "/" between them; empty parts are left out."""
    return "/".join(part for part in parts if part)
