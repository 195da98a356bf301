"""Work that takes longer than a page should: done once in the background, one job after the other, and then kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, TypeVar

from sur.cache import CacheError
from sur.support.errors import NotInStore

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass
class Job(Generic[T]):
    """Some work: how much of it is done, and its result or error. version: that of the data it was started for."""

    version: Hashable
    done: int = 0
    total: int = 0
    result: T | None = None
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether the job has a result or an error."""
        return self.result is not None or bool(self.error)


class Jobs:
    """Jobs by key, run one after the other."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._jobs: dict[Hashable, Job[Any]] = {}
        self._lock = Lock()

    def get(
        self,
        key: Hashable,
        version: Hashable,
        work: Callable[[Callable[[int, int], None]], T],
        renew: bool = False,
        retry: bool = False,
    ) -> Job[T]:
        """The job of a key, which is started if there is none.

        renew: start it again if the last one was of another version. retry: start it again if the last one failed.
        work: is called with a function to which it reports how much is done and how much there is.
        """
        with self._lock:
            job = self._jobs.get(key)
            again = job is not None and job.ended and (renew and job.version != version or retry and job.error)
            if job is None or again:
                job = self._jobs[key] = Job(version)
                self._pool.submit(self._run, job, work)
            return job

    def stop(self) -> None:
        """Start no more jobs."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, job: Job[T], work: Callable[[Callable[[int, int], None]], T]) -> None:
        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total

        try:
            job.result = work(progress)
        except (CacheError, NotInStore, OSError) as error:
            job.error = str(error)
        except Exception as error:
            _log.exception("background work failed")
            job.error = f"{type(error).__name__}: {error}"
