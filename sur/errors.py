"""Exceptions that tell the user something to mend: shown as a message without traceback, exit code 2."""

from cache import CacheError
from sur.inspection.errors import NotInStore
from sur.rows.source import RowError
from sur.vllm.errors import EngineGone, EngineRefused


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, override or setting and the remedy."""


class DoesNotFit(ValueError):
    """The features need more bytes than the disk has free."""


class WorkerLost(RuntimeError):
    """Worker processes of an extraction ended in the middle of their tasks."""


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
