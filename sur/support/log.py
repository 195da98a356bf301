"""The program's own log on stderr, for commands outside of Prefect, which logs its flows itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from sur.support.formatting import visible

if TYPE_CHECKING:
    from rich.console import Console

LINE = "%(asctime)s.%(msecs)03d | %(levelname)-7s | %(name)s - %(message)s"  # the format of Prefect's lines
ROOT_LOGGER = "sur"  # the parent of every logger of ours


class _Formatter(logging.Formatter):
    """Lines in which characters that would steer the terminal are shown."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


@contextmanager
def log_to_stderr(once: bool = False) -> Iterator[None]:
    """Write our own log lines to stderr inside the block; `once`: each different line only once."""
    handler = logging.StreamHandler()
    if once:
        written: set[str] = set()
        handler.addFilter(lambda record: (text := record.getMessage()) not in written and not written.add(text))
    handler.setFormatter(_Formatter(LINE, "%H:%M:%S"))
    ours = logging.getLogger(ROOT_LOGGER)
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def show_controls(record: logging.LogRecord) -> bool:
    """A filter for the handlers of others that lets every record pass, with what would steer the terminal shown."""
    record.msg, record.args = visible(record.getMessage()), ()
    return True


@contextmanager
def lines_above(console: Console, stderr: TextIO) -> Iterator[None]:
    """Let a console print the lines of all log handlers that write to stderr, so that its bar stays below them.

    stderr: what it was before the bar began.
    """

    def printing(handler: logging.Handler) -> None:
        def emit(record: logging.LogRecord) -> None:
            try:
                console.print(handler.format(record), soft_wrap=True)
            except Exception:
                handler.handleError(record)

        handler.emit = emit

    known = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    handlers = {handler for logger in known for handler in logger.handlers}
    ours = [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in (stderr, sys.__stderr__)
    ]
    before = [vars(handler).get("emit") for handler in ours]  # another bar's
    for handler in ours:
        printing(handler)
    try:
        yield
    finally:
        for handler, emit in zip(ours, before, strict=True):
            del handler.emit
            if emit is not None:
                handler.emit = emit
