"""Where the tasks of an extraction run: in the flow's process, in processes of this host, on a Dask or a Ray cluster.

All four run the same task on the same store. When a worker dies, only the partitions at which it was working are lost:
the partitions without a receipt are handed out again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Crashed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner
from prefect.tasks import Task

from sur.config.run import FlowConfig
from sur.features.devices import forget_devices
from sur.support.errors import ConfigError, WorkerLost

if TYPE_CHECKING:
    from uuid import UUID

RAY_OBJECT_BYTES = 100_000_000  # tasks pass numbers, no tensors; by default Ray takes a third of the memory
PACKAGES = {"dask": "prefect-dask distributed", "ray": "prefect-ray ray"}
BATCHES_A_WORKER = 3  # handed out at a time: one runs, two wait at the worker
_log = logging.getLogger(__name__)


class Workers:
    """Runs tasks where the configuration says; use it as a context manager."""

    def __init__(self, config: FlowConfig) -> None:
        self._config = config
        self._runner: TaskRunner[Any] | None = None
        self._waiting: deque[PrefectFuture[Any]] = deque()
        self._before: set[Any] = set()

    @property
    def elsewhere(self) -> bool:
        """Whether tasks run in processes other than this one."""
        return self._config.runner != "inline"

    @property
    def scope(self) -> str | None:
        """Name under which the workers share out their devices; None where no devices are configured."""
        return str(flow_run.id or os.getpid()) if self._config.devices and self.elsewhere else None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._close(at_once=error is not None)
        if self.scope is not None:
            forget_devices(self.scope)

    def run(self, task: Task[..., Any], calls: Iterable[dict[str, Any]]) -> Iterator[Any]:
        """Results of a task for each set of parameters, in their order; a few calls run at a time.

        Raises: WorkerLost, after the results of the calls that were not lost; any exception that the task raised.
        """
        if not self.elsewhere:
            yield from (task(**call) for call in calls)
            return
        lost: BaseException | None = None
        for call in calls:
            try:
                self._waiting.append(self._started().submit(task, call))
            except BrokenProcessPool as error:
                lost = error
                break
            if len(self._waiting) >= BATCHES_A_WORKER * self._config.workers:
                try:
                    yield self._next()
                except WorkerLost as error:
                    lost = error
                    break
        while self._waiting:
            try:
                yield self._next()
            except WorkerLost as error:
                lost = error
        if lost is not None:
            self._close(at_once=True)
            raise WorkerLost(str(lost)) from lost

    def _next(self) -> Any:
        """Result of the task that has waited longest."""
        future = self._waiting.popleft()
        try:
            return future.result()
        except _losses(self._config.runner) as error:
            _mark_crashed(future.task_run_id, error)
            raise WorkerLost(f"{type(error).__name__}: {error}") from error

    def _started(self) -> TaskRunner[Any]:
        if self._runner is None:
            self._before = set(multiprocessing.active_children())
            self._runner = _runner(self._config)
            self._runner.__enter__()
        return self._runner

    def _close(self, at_once: bool) -> None:
        """End the workers that were started for this run; `at_once`: without waiting for their tasks."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if at_once:
            for future in self._waiting:
                with suppress(Exception):
                    future.wrapped_future.cancel()  # pyright: ignore[reportAttributeAccessIssue]
            for child in set(multiprocessing.active_children()) - self._before:
                child.terminate()
        self._waiting.clear()
        runner.__exit__(None, None, None)


def _runner(config: FlowConfig) -> TaskRunner[Any]:
    """Prefect's task runner of a configuration.

    Raises: ConfigError when its package is missing.
    """
    if config.runner == "processes":
        return ProcessPoolTaskRunner(max_workers=config.workers, initializer=end_with_parent)
    try:
        if config.runner == "dask":
            from prefect_dask import DaskTaskRunner

            logging.getLogger("distributed").setLevel(logging.WARNING)  # or each connection is a line
            if config.address:
                return DaskTaskRunner(address=config.address)
            own = {"n_workers": config.workers, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
            return DaskTaskRunner(cluster_kwargs=own)
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise ConfigError(
            f"flow.runner={config.runner} needs a package that is not installed ({error.name}): "
            f"pip install {PACKAGES[config.runner]}, or use flow.runner=processes"
        ) from error
    if config.address:
        return RayTaskRunner(address=config.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"num_cpus": config.workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    own["object_store_memory"] = RAY_OBJECT_BYTES
    return RayTaskRunner(init_kwargs=own)


def _losses(runner: str) -> tuple[type[BaseException], ...]:
    """Exceptions by which a future says that its worker has died, after the runner's own retries."""
    if runner == "dask":
        from distributed.scheduler import KilledWorker

        return (KilledWorker,)
    if runner == "ray":
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

        return (WorkerCrashedError, NodeDiedError, OutOfMemoryError, RayActorError)
    return (BrokenProcessPool,)


def _mark_crashed(task_run: UUID, error: BaseException) -> None:
    """Mark a task as crashed. Its process could not do so, and Prefect would take it for running for ever."""
    with suppress(Exception), get_client(sync_client=True) as client:  # never in place of the loss itself
        state = Crashed(
            message=f"the worker process ended ({type(error).__name__}); its partitions are handed out again"
        )
        client.set_task_run_state(task_run, state, force=True)


def end_with_parent() -> None:
    """Have this worker process end when its parent does, however the parent ends, so that no orphan holds a GPU."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
