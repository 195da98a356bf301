"""Work in background threads: a bounded amount behind its making or ahead of its use, and many waits side by side."""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self, TypeVar

_SIDE_BY_SIDE = 16  # requests under way at a time
T = TypeVar("T")
A = TypeVar("A")
logger = logging.getLogger(__name__)


class Behind:
    """Runs jobs in `depth` threads, begun in the order in which they came.

    When `submit` returns, at most `depth` jobs are unfinished: it waits for the oldest. Each job runs, whatever became
    of those before it; what one raises is raised by the next `submit` or `drain`. Leaving the block waits for all jobs,
    whatever ended it.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(depth, thread_name_prefix="cache-behind")
        self._jobs: deque[Future[None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job run in its turn, in the caller's context."""
        self._jobs.append(self._pool.submit(contextvars.copy_context().run, job))
        while self._jobs and (len(self._jobs) > self._depth or self._jobs[0].done()):
            self._finish_oldest()

    def drain(self) -> None:
        """Wait until every job is done."""
        while self._jobs:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        wait([self._jobs[0]])  # an interrupt here leaves it to be reported
        self._jobs.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        try:
            if error is None:
                self.drain()
        finally:
            for failed in filter(None, (job.exception() for job in self._jobs)):
                logger.error("background work failed too: %s", failed)


def ahead(make: Callable[[int], T], numbers: Iterable[int], count: int, threads: int = 1) -> Iterator[T]:
    """`map(make, numbers)` in background threads, up to `count` results before they are asked for."""
    with ThreadPoolExecutor(threads, thread_name_prefix="cache-loader") as pool:
        made: deque[Future[T]] = deque()
        try:
            for number in numbers:
                made.append(pool.submit(make, number))
                if len(made) > count:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def side_by_side(work: Callable[[A], T], items: Iterable[A], threads: int = _SIDE_BY_SIDE) -> list[T]:
    """`work` of every item, in their order, several at a time: for requests that are mostly waiting."""
    with ThreadPoolExecutor(threads, thread_name_prefix="cache-requests") as pool:
        return list(pool.map(work, items))
