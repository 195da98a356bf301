"""Files published so that a kill leaves the old one or the new one, and locks that die with their holder."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.errors import CorruptStore, DiskFull

PARTIAL = ".partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def publish(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically and durably, then read it back.

    Order: `<path>.partial` written, fsynced, read back and compared, renamed, directory fsynced.

    Raises:
        DiskFull: no space; the unfinished file is removed.
        CorruptStore: the bytes read back differ.
    """
    partial = path.with_name(path.name + PARTIAL)
    make_directory(path.parent)
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if partial.read_bytes() != data:
            raise CorruptStore(f"{partial}: the bytes read back differ from those written; check the disk.")
        os.replace(partial, path)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno in _FULL:
            partial.unlink(missing_ok=True)
            raise _disk_full(path, len(data)) from error
        raise


def _disk_full(path: Path, size: int) -> DiskFull:
    return DiskFull(
        f"No space left for {path} ({size:,} bytes). Committed partitions are safe; "
        "free some space and run the same command again to resume."
    )


def make_directory(path: Path) -> None:
    """Create `path` and its parents durably; nothing happens to those that exist."""
    if path.is_dir():
        return
    make_directory(path.parent)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(path, 0) from error
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in the directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path, wait: bool) -> Iterator[bool]:
    """Hold an exclusive lock on `directory` (created if absent); yields False if busy and not `wait`.

    The kernel drops the lock when the process ends, however it ends, and it leaves no file. A directory
    still empty at the end is removed, so that an abandoned claim leaves no trace.
    """
    descriptor = -1
    try:
        while True:
            make_directory(directory)
            try:
                descriptor = os.open(directory, os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if os.stat(directory).st_ino == os.fstat(descriptor).st_ino:
                    break
            except FileNotFoundError:
                pass  # its last holder has just removed it: make it anew
            except BlockingIOError:
                yield False
                return
            if descriptor >= 0:
                os.close(descriptor)
                descriptor = -1
        try:
            yield True
        finally:
            with suppress(OSError):  # not empty: the usual case
                os.rmdir(directory)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def busy(directory: Path) -> bool:
    """Whether someone holds the lock on `directory` now."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
