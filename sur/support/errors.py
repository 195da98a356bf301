"""Exceptions that tell the user something to mend: shown as a message without traceback, exit code 2."""

from __future__ import annotations

from sur.cache import CacheError


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, override or setting and the remedy."""


class DoesNotFit(ValueError):
    """The features need more bytes than the disk has free."""


class WorkerLost(RuntimeError):
    """Worker processes of an extraction ended in the middle of their tasks."""


class EngineRefused(ValueError):
    """The server serves something else than the configuration says; nothing of it is cached."""


class EngineGone(RuntimeError):
    """The server does not answer, or has ended; what is cached is safe, and the same command goes on."""


class NotInStore(LookupError):
    """A row, picture or feature that was asked for is not there; the message says what is, or what to do."""


class RowError(ValueError):
    """One row, or one field of it, cannot be used."""

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__(f"{field}: {reason}; {remedy}")
        self.field, self.reason, self.remedy = field, reason, remedy


USER_ERRORS: tuple[type[Exception], ...] = (
    ConfigError,
    DoesNotFit,
    WorkerLost,
    RowError,
    EngineGone,
    EngineRefused,
    CacheError,
    NotInStore,
    FileNotFoundError,
    FloatingPointError,
)
