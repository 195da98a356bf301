"""Work in background threads: writes behind the work, reads ahead of it, and many waits at a time."""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self, TypeVar

_REQUESTS = 16  # under way at a time
T = TypeVar("T")
A = TypeVar("A")
logger = logging.getLogger(__name__)


class WriteBehind:
    """Runs jobs in `depth` background threads, in the order in which they are submitted.

    At most `depth` jobs are unfinished when `submit` returns: it waits for the oldest one. A job runs even if an
    earlier job failed. The next `submit` or `drain` raises the error of a failed job. Leaving the block waits for all
    jobs, also when an error ends the block.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(depth, thread_name_prefix="cache-behind")
        self._jobs: deque[Future[None]] = deque()

    def submit(self, job: Callable[[], None]) -> None:
        """Add a job, which runs in a copy of the caller's context."""
        self._jobs.append(self._pool.submit(contextvars.copy_context().run, job))
        while self._jobs and (len(self._jobs) > self._depth or self._jobs[0].done()):
            self._finish_oldest()

    def drain(self) -> None:
        """Wait until every job is done."""
        while self._jobs:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        wait([self._jobs[0]])  # an interrupt during the wait leaves the job in the queue, to be reported at the end
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
            for failure in filter(None, (job.exception() for job in self._jobs)):
                logger.error("background work failed too: %s", failure)


def prefetch(make: Callable[[int], T], numbers: Iterable[int], count: int, threads: int = 1) -> Iterator[T]:
    """Yield the results of `map(make, numbers)`; background threads compute up to `count` of them in advance."""
    with ThreadPoolExecutor(threads, thread_name_prefix="cache-loader") as pool:
        results: deque[Future[T]] = deque()
        try:
            for number in numbers:
                results.append(pool.submit(make, number))
                if len(results) > count:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def map_parallel(work: Callable[[A], T], items: Iterable[A], threads: int = _REQUESTS) -> list[T]:
    """The results of `work` in the order of `items`, computed in several threads: for work that mostly waits."""
    with ThreadPoolExecutor(threads, thread_name_prefix="cache-requests") as pool:
        return list(pool.map(work, items))
