"""Progress of anything that takes longer than a few seconds: a bar in a terminal, elsewhere lines in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from sur.support.formatting import format_seconds

LINE_SECONDS = 30.0  # at most one line in this time
logger = logging.getLogger(__name__)


class Progress:
    """Counts units of work. `unit` is their plural, for the lines; `also` hears after each report how many are done."""

    def __init__(self, name: str, total: int, unit: str, also: Callable[[int], None] | None = None) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._terminal = console.is_terminal
        self._bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=not self._terminal)
        self._task = self._bar.add_task(name, total=total)
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._also = also
        self._began = self._told = time.monotonic()
        self._first: tuple[float, int] | None = None  # when units were first reported, and how many were done then

    def __enter__(self) -> Self:
        self._bar.start()
        if self.total:
            self._tell(f"{self.name}: {self.total} {self.unit} in all")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if error is None and self.done:
            spent = format_seconds(time.monotonic() - self._began)
            self._tell(f"{self.name}: {self.done} of {self.total} {self.unit} done, after {spent}")

    def reach(self, done: int, note: str | None = None) -> None:
        """Say that `done` units are done in all, those of an earlier run included."""
        self.advance(done - self.done, note)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Say that `count` more units are done, optionally with a note beside them."""
        self.done += count
        self._bar.update(self._task, advance=count, description=note)
        now = time.monotonic()
        self._first = self._first or (now, self.done)
        if now - self._told >= LINE_SECONDS:
            parts = [f"{self.name}: {self.done} of {self.total} {self.unit}", note, self._left(now)]
            self._tell(", ".join(part for part in parts if part))
        if self._also is not None:
            self._also(self.done)

    def _left(self, now: float) -> str:
        """How long the rest will take at the pace since the first report; "" before there is a pace."""
        since, already = self._first or (now, self.done)
        if self.done <= already or self.done >= self.total:
            return ""
        return f"about {format_seconds((now - since) / (self.done - already) * (self.total - self.done))} left"

    def _tell(self, line: str) -> None:
        if not self._terminal:
            self._told = time.monotonic()
            logger.info(line)
