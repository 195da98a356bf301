"""Extraction in worker processes, on a real local Dask cluster and a real local Ray, with workers killed."""

import os
import signal
import threading
import time
from contextlib import suppress

import psutil
import pytest
from tiny_run import save_config_file, save_models, save_rows, store_files

from flows.launch import prefect_ready, run_flow
from sur.config import load_config
from sur.extraction import extract

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]
TWO = ["flow.workers=2", "flow.devices=[cpu,cpu]", "flow.partitions_per_task=1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Random models, rows, and the store that an extraction without Prefect makes of them."""
    folder = tmp_path_factory.mktemp("workers")
    models, rows = save_models(folder / "models"), save_rows(folder / "rows")
    config = load_config(save_config_file(folder, models, rows))
    extract(config)
    return models, rows, store_files(config.store.path)


@pytest.fixture(scope="module", autouse=True)
def prefect(tmp_path_factory):
    with prefect_ready(tmp_path_factory.mktemp("prefect")):
        yield


def own_config(tmp_path, tiny, *settings):
    models, rows, _ = tiny
    return load_config(save_config_file(tmp_path, models, rows), [*TWO, *settings])


def task_runs_that_go_on():
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 60
        while running := [run.name for run in client.read_task_runs() if not run.state.is_final()]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)  # states of tasks come by events, some seconds late
    return running


def children():
    """Processes below this one, other than the embedded server and Python's own tracker of shared memory."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended since
            command = " ".join(process.cmdline())
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and "flows.server" not in command
                and "resource_tracker" not in command
            ):
                found.append(process)
    return found


class Killer(threading.Thread):
    """Sends SIGKILL to the first worker that holds a device, once."""

    def __init__(self, times: int = 1):
        super().__init__(daemon=True)
        self.killed, self.times, self.over = [], times, False

    def run(self):
        while not self.over and len(self.killed) < self.times:
            for process in children():
                try:
                    holds = any("sur-devices-" in file.path for file in process.open_files())
                except psutil.Error:
                    continue
                if holds and process.pid not in self.killed:
                    os.kill(process.pid, signal.SIGKILL)
                    self.killed.append(process.pid)
                    break
            time.sleep(0.02)


@pytest.mark.parametrize("runner", ["processes", "dask", "ray"])
def test_a_killed_worker_costs_nothing_but_time(tmp_path, tiny, runner):
    config = own_config(tmp_path, tiny, f"flow.runner={runner}")
    killer = Killer()
    killer.start()
    try:
        done = run_flow("extract", config)
    finally:
        killer.over = True
    assert len(killer.killed) == 1
    assert (done["rows"], done["quarantined"]) == (10, 1)
    assert store_files(config.store.path) == tiny[2]
    assert task_runs_that_go_on() == []
    assert children() == []


def test_workers_that_die_again_and_again_are_not_started_for_ever(tmp_path, tiny):
    from flows.workers import WorkerLost

    config = own_config(tmp_path, tiny, "flow.runner=processes")
    killer = Killer(times=1000)
    killer.start()
    try:
        with pytest.raises(WorkerLost, match="3 times and finished none.*lower the encoder's batch size"):
            run_flow("extract", config)
    finally:
        killer.over = True
    assert children() == []
    assert run_flow("extract", config)["rows"] == 10  # and nothing is in the way of the next run
    assert store_files(config.store.path) == tiny[2]


def test_more_workers_than_devices_are_told_what_to_do(tmp_path, tiny):
    from distributed import LocalCluster

    from sur.errors import ConfigError

    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        address = f"flow.address={cluster.scheduler_address}"
        config = own_config(tmp_path, tiny, "flow.runner=dask", address, "flow.devices=[cpu]", "flow.retries=0")
        with pytest.raises(ConfigError, match="all taken by other workers"):
            run_flow("extract", config)


def test_a_runner_that_is_not_installed_is_named(tmp_path, tiny, monkeypatch):
    import sys

    from sur.errors import ConfigError

    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'sur-feature-cache\[ray\]'"):
        run_flow("extract", own_config(tmp_path, tiny, "flow.runner=ray"))
