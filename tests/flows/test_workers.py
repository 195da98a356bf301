"""Extraction in worker processes, on a real local Dask cluster and a real local Ray, with workers killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_run import save_config_file, save_models, save_rows, store_files

from sur.config.run import load_config
from sur.features.extraction import extract
from sur.flows.runtime.launch import prefect_ready, run_flow

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]
TWO = ["flow.workers=2", "flow.devices=[cpu,cpu]", "flow.partitions_per_task=1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Random models, rows, and the store that an extraction without Prefect makes of them."""
    folder = tmp_path_factory.mktemp("workers")
    models, rows = save_models(folder / "models"), save_rows(folder / "rows")
    config = load_config(save_config_file(folder, models, rows))
    extract(config)
    return models, rows, store_files(Path(config.store.path))


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
        while running := [run.name for run in client.read_task_runs() if run.state is None or not run.state.is_final()]:
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
                and "sur.flows.runtime.server" not in command
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


def run_and_kill(config_file, settings, times=1):
    """`sur extract` in a process of its own, with that many workers killed; its exit code and what it said."""
    killer = Killer(times)
    killer.start()
    command = [str(Path(sys.executable).parent / "sur"), "extract", str(config_file), *TWO, *settings]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    finally:
        killer.over = True
    return killer.killed, done


@pytest.mark.parametrize("runner", ["processes", "dask", "ray"])
def test_a_killed_worker_costs_nothing_but_time(tmp_path, tiny, runner):
    models, rows, expected = tiny
    killed, done = run_and_kill(save_config_file(tmp_path, models, rows), [f"flow.runner={runner}"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(killed) == 1
    said = done.stdout.splitlines()  # Ray says above the summary that it lost a worker
    summary = said[[line.startswith("10 rows, 1 quarantined") for line in said].index(True) :]
    assert len(summary) == 7 and "  vae.pipe.32: 10 of 10 rows encoded" in summary
    assert summary[-1].startswith("each row that was left out, with its reason: ")
    assert store_files(tmp_path / "run" / "store.zarr") == expected
    assert task_runs_that_go_on() == []
    assert children() == []


def test_workers_that_die_again_and_again_are_not_started_for_ever(tmp_path, tiny):
    models, rows, expected = tiny
    path = save_config_file(tmp_path, models, rows)
    killed, done = run_and_kill(path, ["flow.runner=processes"], times=1000)
    assert done.returncode == 2
    assert re.search("workers died 3 times and finished none.*lower the encoder's batch size", done.stderr)
    assert "Traceback" not in done.stderr.splitlines()[-1]
    assert len(killed) >= 3
    assert children() == []
    _, again = run_and_kill(path, ["flow.runner=processes"], times=0)
    assert again.returncode == 0, again.stderr
    assert store_files(tmp_path / "run" / "store.zarr") == expected


def test_more_workers_than_devices_are_told_what_to_do(tmp_path, tiny):
    from distributed import LocalCluster

    from sur.support.errors import ConfigError

    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    local: Any = LocalCluster(**options)
    with local as cluster:
        address = f"flow.address={cluster.scheduler_address}"
        config = own_config(tmp_path, tiny, "flow.runner=dask", address, "flow.devices=[cpu]", "flow.retries=0")
        with pytest.raises(ConfigError, match="all taken by other workers"):
            run_flow("extract", config)


def test_a_runner_that_is_not_installed_is_named(tmp_path, tiny, monkeypatch):
    import sys

    from sur.support.errors import ConfigError

    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(ConfigError, match=r"pip install prefect-ray ray"):
        run_flow("extract", own_config(tmp_path, tiny, "flow.runner=ray"))
