"""The program's own log on stderr, for commands and moments that Prefect does not log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LINE = "%(asctime)s.%(msecs)03d | %(levelname)-7s | %(name)s - %(message)s"  # as Prefect's lines look
OURS = ("sur",)


@contextmanager
def log_to_stderr(once: bool = False) -> Iterator[None]:
    """Write our own log lines to stderr inside the block; `once`: the same line only once."""
    handler = logging.StreamHandler()
    if once:
        said: set[str] = set()
        handler.addFilter(lambda record: (text := record.getMessage()) not in said and not said.add(text))
    handler.setFormatter(logging.Formatter(LINE, "%H:%M:%S"))
    loggers = [logging.getLogger(name) for name in OURS]
    levels = [ours.level for ours in loggers]
    for ours in loggers:
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        for ours, level in zip(loggers, levels, strict=True):
            ours.removeHandler(handler)
            ours.setLevel(level)
