"""The file system's refusals (a full disk, a missing right) as errors that name the remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sur.cache.errors import CacheError, DiskFull, NotWritable, StorageFailed
from sur.cache.storage.durable import DISK_FULL

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def explained(path: Path, size: int = 0) -> Iterator[None]:
    """Translate the errors of the file system into errors that name the remedy."""
    try:
        yield
    except OSError as error:
        raise translated(error, path, size) from error


def translated(error: OSError, path: Path, size: int = 0) -> CacheError:
    """The error that names the remedy for an error of the file system; `size` bytes were to be written."""
    if error.errno in DISK_FULL:
        return DiskFull(
            f"No space left for {path} ({size:,} bytes). Committed partitions are safe; "
            "free some space and run the same command again to resume."
        )
    if error.errno in _FORBIDDEN:
        return NotWritable(
            f"{path} cannot be used: {error.strerror}. Committed partitions are safe; give this user the right to "
            "write there (or to read, or mount the disk writable), and run the same command again to resume."
        )
    return StorageFailed(
        f"{path} cannot be used: {error.strerror}. Committed partitions are safe; "
        "check the disk and the path, and run the same command again to resume."
    )
