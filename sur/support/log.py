"""The program's own log on stderr, for commands outside of Prefect, which logs its flows itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LINE = "%(asctime)s.%(msecs)03d | %(levelname)-7s | %(name)s - %(message)s"  # the format of Prefect's lines
ROOT_LOGGER = "sur"  # the parent of every logger of ours


@contextmanager
def log_to_stderr(once: bool = False) -> Iterator[None]:
    """Write our own log lines to stderr inside the block; `once`: each different line only once."""
    handler = logging.StreamHandler()
    if once:
        written: set[str] = set()
        handler.addFilter(lambda record: (text := record.getMessage()) not in written and not written.add(text))
    handler.setFormatter(logging.Formatter(LINE, "%H:%M:%S"))
    ours = logging.getLogger(ROOT_LOGGER)
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
