"""Locks on folders, which end with the process that holds them, however it ends."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)


@contextmanager
def folder_lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold the exclusive lock of a folder, which is made if absent; yields False if it is busy, unless `wait`.

    The kernel drops the lock with the process, and it leaves no file. On a file system without locks a warning is all.
    """
    import fcntl  # Windows has none, and does not train

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            free = True
        except BlockingIOError:
            free = False
        except OSError as error:
            _log.warning("%s cannot be locked (%s): see to it that one run at a time writes there", folder, error)
            free = True
        yield free
    finally:
        os.close(descriptor)
