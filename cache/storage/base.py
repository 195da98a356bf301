"""Files of a store by key: one small protocol for a local disk (local.py) and object storage (bucket.py).

A key is a file's path inside the store, with "/" between its parts; "" stands for the store's own folder.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np

from sur.cache.errors import CacheError

T = TypeVar("T")
_HOST = re.compile(r"(?:[^:@\[\]]*|\[[0-9a-fA-F:]*\])(?::[0-9]+)?")  # a bucket, or a host with or without a port
_CONTAINER_AT_ACCOUNT = ("abfs", "abfss", "wasb", "wasbs")  # schemes of Azure


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

    def require_own(self, folder: str) -> None:
        """Raises NotWritable when a folder is a link to another one, or lies behind a link."""
        ...

    def is_lock(self, key: str) -> bool:
        """Whether a file is a lock, be its holder alive or dead."""
        ...


def open_storage(location: str | Path) -> Storage:
    """The storage at a local path or a URL (s3://bucket/prefix, gs://, az://).

    Raises CacheError for a URL of another kind or one with a password, or when the extra `remote` is not installed.
    """
    location = store_location(location)
    if isinstance(location, str):
        require_no_secret(location)
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


def require_no_secret(url: str) -> None:
    """Raises CacheError, which does not repeat it, for a URL with a user, a password or a signature."""
    scheme, _, place = url.partition("://")
    bucket = place.partition("/")[0]
    if scheme in _CONTAINER_AT_ACCOUNT and ":" not in bucket:
        bucket = bucket.rpartition("@")[2]
    if not _HOST.fullmatch(bucket) or "?" in place:
        shown = place.rpartition("@")[2].partition("?")[0]
        raise CacheError(
            f"{scheme}://{shown} has a key, a password or a signature in its URL, where logs and run folders would "
            "keep it. Leave it out, and set the environment's variables instead (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or the cloud's own)."
        )


def same_or_inside(location: str | Path, other: str | Path) -> bool:
    """Whether a location is the other one or lies in it, whatever links, `..` or slashes they are written with."""
    if isinstance(location, str) or isinstance(other, str):
        return f"{_plain_url(location)}/".startswith(f"{_plain_url(other)}/")
    place, folder = Path(os.path.realpath(location)), Path(os.path.realpath(other))
    if not folder.exists():
        return place.is_relative_to(folder)
    return any(parent.exists() and parent.samefile(folder) for parent in (place, *place.parents))


def _plain_url(location: str | Path) -> str:
    """A URL in one spelling: bucket in lower case, path without `.`, `..` and empty parts. A path is a file:// URL."""
    if isinstance(location, Path):
        return f"file://{os.path.realpath(location)}"
    url = urlsplit(location)
    path = posixpath.normpath(f"/{unquote(url.path).lstrip('/')}")
    return f"{url.scheme.lower()}://{url.netloc.lower()}{path}".rstrip("/")


def join(*parts: str) -> str:
    """A key of these parts, with "/" between them; empty parts are left out."""
    return "/".join(part for part in parts if part)
