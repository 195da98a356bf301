"""Errors that the user can mend. A command shows them as one message without traceback and ends with exit code 2.

    UserError
    ├── ConfigError         settings that cannot be used                       also a ValueError
    ├── NotFound            a file, folder or model that was named is absent   also a FileNotFoundError
    ├── DamagedFile         a file is not as it was written                    also a ValueError
    ├── RowError            one row, or one field of it, cannot be used        also a ValueError
    ├── DoesNotFit          the disk has too little space                      also a ValueError
    ├── NotInStore          no such row, picture or feature in the store       also a LookupError
    ├── LossNotFinite       a training's loss is NaN or infinite               also a FloatingPointError
    ├── RunBusy             another process is at work in a run's folder       also a RuntimeError
    ├── WorkerLost          worker processes ended in the middle of a task     also a RuntimeError
    ├── EngineGone          an LLM server does not answer                      also a RuntimeError
    └── EngineRefused       an LLM server serves something else                also a ValueError

The cache is a package of its own: its errors have the base `sur.cache.CacheError` and are shown in the same way.
"""

from __future__ import annotations

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


class DoesNotFit(UserError, ValueError):
    """The features need more bytes than the disk has free."""


class NotInStore(UserError, LookupError):
    """A row, picture or feature is not in the store; the message names those that are, or what to do."""


class LossNotFinite(UserError, FloatingPointError):
    """A training step's loss is NaN or infinite; the weights are those of the step before."""


class RunBusy(UserError, RuntimeError):
    """Another process is at work in a run's folder."""


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
