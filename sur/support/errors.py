"""Errors that the user can mend. A command shows them as one message without traceback and ends with exit code 2.
Errors of disks and paths (a full disk, a missing right, a folder in a file's place) are among them.

    UserError
    ├── ConfigError         settings that cannot be used                       also a ValueError
    ├── NotFound            a file, folder or model that was named is absent   also a FileNotFoundError
    ├── DamagedFile         a file is not as it was written                    also a ValueError
    ├── RowError            one row, or one field of it, cannot be used        also a ValueError
    ├── NothingEncoded      no row is usable, or has a feature's value         also a ValueError
    ├── DoesNotFit          the disk has too little space                      also a ValueError
    ├── NotInStore          no such row, picture or feature in the store       also a LookupError
    ├── LossNotFinite       a training's loss is NaN or infinite               also a FloatingPointError
    ├── RunBusy             another process is at work in a run's folder       also a RuntimeError
    ├── ServerLost          the run's own Prefect server does not work         also a RuntimeError
    ├── WorkerLost          worker processes ended in the middle of a task     also a RuntimeError
    ├── EngineGone          an LLM server does not answer                      also a RuntimeError
    └── EngineRefused       an LLM server serves something else                also a ValueError

The cache is a package of its own: its errors have the base `sur.cache.CacheError` and are shown in the same way.
"""

from __future__ import annotations

import errno
import sys


class UserError(Exception):
    """An error that the user can mend; its message names what is wrong and what to do."""


class ConfigError(UserError, ValueError):
    """Settings that cannot be used; the message names the file, override or setting and the remedy."""


class NotFound(UserError, FileNotFoundError):
    """A file, folder or model that the user named is not there."""


class DamagedFile(UserError, ValueError):
    """A file is not as it was written: a checksum or its form says so."""


class RowError(UserError, ValueError):
    """One row, or one field of it, cannot be used."""

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__(f"{field}: {reason}; {remedy}")
        self.field, self.reason, self.remedy = field, reason, remedy


class NothingEncoded(UserError, ValueError):
    """No row of a data source is usable, or none got a value of a feature; the message has the first reason."""


class DoesNotFit(UserError, ValueError):
    """The features need more bytes than the disk has free."""


class NotInStore(UserError, LookupError):
    """A row, picture or feature is not in the store; the message names those that are, or what to do."""


class LossNotFinite(UserError, FloatingPointError):
    """A training step's loss is NaN or infinite; the weights are those of the step before."""


class RunBusy(UserError, RuntimeError):
    """Another process is at work in a run's folder."""


class ServerLost(UserError, RuntimeError):
    """The run's own Prefect server does not start, or does not answer any more; what was saved is safe."""


class WorkerLost(UserError, RuntimeError):
    """Worker processes of an extraction ended in the middle of their tasks."""


class EngineGone(UserError, RuntimeError):
    """The LLM server does not answer, or has ended; cached features are safe, and the same command goes on."""


class EngineRefused(UserError, ValueError):
    """The LLM server serves something else than the configuration says; nothing of it is cached."""


def shown_errors() -> tuple[type[Exception], ...]:
    """Types of errors that a command shows as a message: these, the cache's, and FileNotFoundError.

    The cache is not loaded for it: where it is not loaded already, no error can be one of its own.
    """
    cache_errors = sys.modules.get("sur.cache.errors")
    own: tuple[type[Exception], ...] = (UserError, FileNotFoundError)
    return own if cache_errors is None else (*own, cache_errors.CacheError)


_RIGHT = "give this user the right to read and write it, or choose another place"
_PLACE = "a file and a folder have one name: rename one of them, or choose another place"
_REMEDIES = {
    errno.ENOSPC: "free some space, and run the same command again",
    errno.EDQUOT: "free some of your quota, and run the same command again",
    errno.EFBIG: "allow larger files (`ulimit -f`, or another file system), and run the same command again",
    errno.EIO: "the disk failed: see the kernel's log (dmesg), and check the disk",
    errno.EROFS: "mount it writable, or choose another place",
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EISDIR: _PLACE,
    errno.ENOTDIR: _PLACE,
    errno.EEXIST: _PLACE,
    errno.ENOTEMPTY: _PLACE,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: correct them",
    errno.EMFILE: "allow more open files (`ulimit -n`)",
    errno.ENFILE: "the system has too many open files: end other programs",
    errno.ESTALE: "the network file system has lost the file: mount it again, and run the same command again",
}


def shown_message(error: BaseException) -> str | None:
    """The message that a command shows for an error in place of a traceback; None for a fault of the program."""
    if isinstance(error, shown_errors()):
        return str(error)
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = error.filename2 or error.filename or "a file"
        return f"{place}: {error.strerror}; {_REMEDIES[error.errno]}"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a path holds the character NUL, which no file's name can have; correct run_dir and the other paths"
    return None
