"""Files that are replaced whole, and survive a power cut once they are."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def durable_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for a file to be written and made durable; at the end it replaces `path`.

    The folder of `path` is made if needed. When the block raises, `path` is as it was. The temporary file stays for
    the next write to replace, and is removed only if the disk is full.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        make_folder(path.parent)
        yield partial
        os.replace(partial, path)
        make_durable(path.parent)
    except OSError as error:
        if error.errno in DISK_FULL:
            partial.unlink(missing_ok=True)
        raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents durably; nothing happens to those that exist."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    make_durable(path.parent)


def make_durable(path: Path) -> None:
    """Wait until a file, or the renames and removals in a folder, are on the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
