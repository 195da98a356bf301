"""Keep model libraries from filling a log that belongs to the caller."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Errors only from transformers and diffusers, and no progress bars where there is no terminal.

    What they would warn of is checked and counted by the encoders: missing weights raise, truncated prompts
    are in the stats.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    bars = [
        library
        for library in (transformers_logging, diffusers_logging)
        if library.is_progress_bar_enabled() and not sys.stderr.isatty()
    ]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    for library in bars:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for library in bars:
            library.enable_progress_bar()
