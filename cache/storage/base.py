"""Where a store's files lie: one small protocol for a local disk (local.py) and object storage (bucket.py).

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
    """A file opened for positioned reads; closed when its last user lets go. Safe between threads."""

    size: int

    def read_now(self, target: np.ndarray, offset: int) -> bool:
        """Fill contiguous bytes from `offset` on if that needs no waiting; else have them fetched, and say False."""
        ...

    def read_into(self, target: np.ndarray, offset: int) -> bool:
        """Fill contiguous bytes from `offset` on, True. Raises CorruptStore when the file ends before."""
        ...


class Storage(Protocol):
    """Files by key. What `publish` has returned from survives a kill, and is never seen in part."""

    random_reads: bool  # whether reading single rows here and there is cheap

    @property
    def max_open_files(self) -> int:
        """Number of files that random reads may keep open in this process."""
        ...

    @property
    def location(self) -> str | Path:
        """Folder or URL, as the user gave it."""
        ...

    def where(self, key: str) -> str:
        """The file's place, for messages."""
        ...

    def read(self, key: str) -> bytes | None:
        """A whole file; None if there is none."""
        ...

    def open(self, key: str, scattered: bool = False) -> OpenFile:
        """A file for positioned reads; `scattered`: here and there, not in order. Raises FileNotFoundError."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of a file; None if there is none."""
        ...

    def publish(self, key: str, *pieces: bytes | memoryview) -> None:
        """Write a file of such pieces, one behind the other, all or nothing and durably.

        Raises DiskFull, NotWritable, CorruptStore (it did not read back).
        """
        ...

    def map(self, work: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
        """Results of `work`, which reads files, in the order of `numbers`; a remote storage runs several at a time."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file, durably; nothing happens if there is none."""
        ...

    def remove_tree(self, folder: str) -> None:
        """Remove everything below a folder."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted; [] if there is none."""
        ...

    def files(self, folder: str = "") -> Iterator[str]:
        """Keys of all files below a folder, sorted."""
        ...

    def locked(self, folder: str, wait: bool) -> AbstractContextManager[bool]:
        """Hold the exclusive lock of a folder; yields False if another holds it and not `wait`.

        No lock outlives its holder: a dead process's is free at once (disk) or after a while (object storage).
        """
        ...

    def busy(self, folder: str) -> bool:
        """Whether someone holds the lock of a folder now."""
        ...

    def clear_leftovers(self, folder: str) -> None:
        """Remove what interrupted writes left below a folder."""
        ...

    def leftover(self, key: str) -> bool:
        """Whether a file is what an interrupted write of this store left."""
        ...

    def is_lock(self, key: str) -> bool:
        """Whether a file is a lock, alive or a dead process's: the next who wants it takes it over."""
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
                f"{location} is in object storage, which needs an extra: pip install 'sur-feature-cache[remote]'."
            ) from error

        return BucketStorage(location)
    from sur.cache.storage.local import LocalStorage

    return LocalStorage(location)


def store_location(text: str | Path) -> str | Path:
    """What a user wrote for a store: a URL stays text, everything else is a path."""
    return text if isinstance(text, str) and "://" in text else Path(text)


def join(*parts: str) -> str:
    """Parts of a key with "/" between them; empty parts fall out."""
    return "/".join(part for part in parts if part)
