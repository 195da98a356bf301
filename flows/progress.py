"""Progress of a flow, as a bar in a terminal and as a Prefect progress artifact."""

import re
import time
from types import TracebackType
from typing import Self

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

ARTIFACT_SECONDS = 2.0  # at most one update of the artifact in this time


class FlowProgress:
    """Counts units of work; nothing is drawn when stderr is not a terminal."""

    def __init__(self, name: str, total: int) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._line = self._bar.add_task(name, total=total)
        self._total = total
        self._done = 0
        self._updated = time.monotonic()
        key = re.sub(r"[^a-z0-9]+", "-", f"progress-{name}".lower())
        self._artifact = create_progress_artifact(0.0, key=key, description=name) if total else None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def reach(self, done: int, note: str | None = None) -> None:
        """Say that `done` units are done in all, those of an earlier run included."""
        self.advance(done - self._done, note)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Say that `count` more units are done, optionally with a note beside the bar."""
        self._done += count
        self._bar.update(self._line, advance=count, description=note)
        now = time.monotonic()
        finished = self._done >= self._total
        if self._artifact is not None and (finished or now - self._updated >= ARTIFACT_SECONDS):
            self._updated = now
            update_progress_artifact(self._artifact, progress=100.0 * min(1.0, self._done / self._total))  # pyright: ignore[reportArgumentType]
