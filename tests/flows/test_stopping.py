"""Ctrl-C and SIGTERM: one line that says what is kept, the shell's exit code, and a run that goes on."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import save_config_file, save_models, save_rows

from sur.cache import Store
from sur.config.load import save_config
from sur.config.run import load_config
from sur.config.run_folder import RunFolder
from sur.flows.runtime.launch import stopped
from sur.support.signals import Stopped, stop_on_signals

SUR = str(Path(sys.executable).parent / "sur")


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """As in a terminal: a shell has its background jobs, and their children, ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run_and_stop(command: list[str], log: Path, ready, number: int) -> tuple[int, str]:
    """Run a command, signal it once `ready(log's text)` holds; returns its exit code and everything it wrote."""
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as run:
        deadline = time.monotonic() + 120
        while run.poll() is None and not ready(log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(number)
    return run.returncode, log.read_text()


def flow_states(run_dir: Path) -> set[str]:
    """States of the flow runs that the embedded server has recorded."""
    with sqlite3.connect(run_dir / "prefect" / "prefect.db") as database:
        return {state for (state,) in database.execute("SELECT state_type FROM flow_run")}


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_a_stopped_training_has_saved_its_last_step_and_says_so(own_config):
    long = own_config.train.model_copy(update={"steps": 100_000, "save_every": 0, "validate_every": 0})
    path = save_config(own_config.model_copy(update={"train": long}))
    curves = own_config.run_dir / "curves.jsonl"

    def begun(_text: str) -> bool:
        return curves.is_file() and curves.stat().st_size > 0

    code, text = run_and_stop([SUR, "train", str(path)], own_config.run_dir / "log", begun, signal.SIGTERM)
    newest = RunFolder(own_config.run_dir).latest_checkpoint()
    assert newest is not None, text
    step = int(newest.name.removeprefix("step-"))
    assert code == 143
    assert text.splitlines()[-1].endswith(
        f"the training at step {step} of 100000 in {newest.parent}. The same command goes on from there"
    )
    assert not re.search("Crash|Traceback|ERROR", text)
    assert flow_states(own_config.run_dir) == {"CRASHED"}


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_a_stopped_extraction_says_how_many_partitions_are_kept_and_goes_on(tmp_path):
    path = save_config_file(tmp_path, save_models(tmp_path / "models"), save_rows(tmp_path / "rows", pictures=80))
    command = [sys.executable, "-m", "sur.flows.extract", str(path)]
    code, text = run_and_stop(command, tmp_path / "log", lambda text: "partition 1 computed" in text, signal.SIGINT)
    store = Store.open(load_config(path).store.path)
    done = sum(receipt is not None for name in store.features() for receipt in store.receipts(name))
    assert code == 130
    assert f"stopped; kept: {done} of 200 partitions in {store.path}" in text.splitlines()[-1]
    assert 0 < done < 200
    assert not re.search("Crash|Traceback|ERROR", text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_one_exception_with_the_shell_s_exit_code(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stop, stop_on_signals():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert stop.value.exit_code == 128 + number
    assert signal.getsignal(number) == before


def test_a_signal_that_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_stopped_before_it_saved_anything_says_so(tmp_path):
    config = load_config(save_config_file(tmp_path, tmp_path, tmp_path))
    assert str(stopped(KeyboardInterrupt(), config)) == "stopped before anything was saved"
