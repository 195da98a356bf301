"""Exceptions that tell the user something to mend: shown as a message without traceback, exit code 2."""

from cache import CacheError
from sur.config import ConfigError
from sur.planning import DoesNotFit
from sur.rows import RowError

USER_ERRORS: tuple[type[Exception], ...] = (ConfigError, DoesNotFit, RowError, CacheError, FileNotFoundError)
