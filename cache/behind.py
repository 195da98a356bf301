"""Work put off to a background thread, a bounded amount of it: who makes values need not wait for the disk."""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)


class Behind:
    """Runs jobs one after the other, in the order in which they came.

    When `submit` returns, at most `depth` jobs are unfinished: it waits for the oldest. Each job runs, whatever became
    of those before it; what one raises is raised by the next `submit` or `drain`. Leaving the block waits for all jobs,
    whatever ended it.
    """

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cache-behind")
        self._jobs: deque[Future[None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job run in its turn, in the caller's context."""
        self._jobs.append(self._pool.submit(contextvars.copy_context().run, job))
        while self._jobs and (len(self._jobs) > self._depth or self._jobs[0].done()):
            self._jobs.popleft().result()

    def drain(self) -> None:
        """Wait until every job is done."""
        while self._jobs:
            self._jobs.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.drain()
        for failed in filter(None, (job.exception() for job in self._jobs)):
            logger.error("background work failed too: %s", failed)
