"""Progress of work that takes longer than a few seconds: a bar in a terminal, elsewhere lines in the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from sur.support.formatting import format_seconds
from sur.support.log import lines_above
from sur.support.terminal import PlainConsole

LINE_SECONDS = 30.0  # between two lines in the log, at least
logger = logging.getLogger(__name__)


class Progress:
    """Counts units of work. unit: their plural, for the lines. on_report: is called with the units done so far."""

    def __init__(self, name: str, total: int, unit: str, on_report: Callable[[int], None] | None = None) -> None:
        console = PlainConsole(stderr=True)
        self._block = ExitStack()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._terminal = console.is_terminal
        self._bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=not self._terminal)
        self._task = self._bar.add_task(name, total=total)
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._on_report = on_report
        self._began = self._logged = time.monotonic()
        self._first: tuple[float, int] | None = None  # time of the first report, and the units done then

    def __enter__(self) -> Self:
        if self._terminal:
            self._block.enter_context(lines_above(self._bar.console, sys.stderr))
        self._bar.start()
        if self.total:
            self._log_line(f"{self.name}: {self.total} {self.unit} in all")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._block.close()
        if error is None and self.done:
            spent = format_seconds(time.monotonic() - self._began)
            self._log_line(f"{self.name}: {self.done} of {self.total} {self.unit} done, after {spent}")

    def reach(self, done: int, note: str | None = None) -> None:
        """Report that `done` units are done in all, those of an earlier run included."""
        self.advance(done - self.done, note)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Report that `count` more units are done, with a note to show beside them."""
        self.done += count
        self._bar.update(self._task, advance=count, description=note)
        now = time.monotonic()
        self._first = self._first or (now, self.done)
        if now - self._logged >= LINE_SECONDS:
            parts = [f"{self.name}: {self.done} of {self.total} {self.unit}", note, self._left(now)]
            self._log_line(", ".join(part for part in parts if part))
        if self._on_report is not None:
            self._on_report(self.done)

    def _left(self, now: float) -> str:
        """Time that the rest will take at the pace since the first report; "" before there is a pace."""
        since, done_then = self._first or (now, self.done)
        if self.done <= done_then or self.done >= self.total:
            return ""
        return f"about {format_seconds((now - since) / (self.done - done_then) * (self.total - self.done))} left"

    def _log_line(self, line: str) -> None:
        if not self._terminal:
            self._logged = time.monotonic()
            logger.info(line)
