"""A run's folder belongs to one training at a time; the lock ends with its holder."""

import json
import signal

import pytest
from tiny_training import tiny_store, training_process, variant

from sur.config.load import save_config
from sur.support.errors import RunBusy
from sur.support.locks import folder_lock
from sur.training.fit import fit

LONG = {"steps": 100_000, "batch_size": 3, "save_every": 50, "log_every": 1}


@pytest.mark.slow
def test_a_second_training_in_a_run_folder_is_refused_and_changes_nothing(tmp_path):
    config = tiny_store(tmp_path)
    run, other = variant(config, "run", train=LONG), variant(config, "run", train={**LONG, "seed": 5})
    first = training_process(run)
    assert first.stdout is not None
    try:
        next(first.stdout)
        settings = (run.run_dir / "config.yaml").read_text()
        with pytest.raises(
            RunBusy, match=rf"another training is at work in {run.run_dir}; wait for its end, or choose"
        ):
            fit(other, on_begin=lambda: save_config(other))
        assert (run.run_dir / "config.yaml").read_text() == settings
        for line in first.stdout:
            if int(line) >= 60:
                break
        first.send_signal(signal.SIGKILL)
    finally:
        first.kill()
        first.communicate()
    steps = []
    save_config(short := variant(config, "run", train={**LONG, "steps": 100_000}))
    with pytest.raises(KeyboardInterrupt):
        fit(short, lambda step: (steps.append(step.step), signal.raise_signal(signal.SIGINT)))
    assert steps[0] % 50 == 1  # it went on from a checkpoint: the dead one holds no lock
    recorded = [json.loads(line)["step"] for line in (run.run_dir / "curves.jsonl").read_text().splitlines()]
    assert recorded == list(range(1, steps[-1] + 1))


def test_a_folder_is_locked_once_and_free_afterwards(tmp_path):
    for _ in range(2):
        with folder_lock(tmp_path / "new", wait=False) as mine, folder_lock(tmp_path / "new", wait=False) as second:
            assert (mine, second) == (True, False)
    with pytest.raises(KeyError), folder_lock(tmp_path / "new", wait=False):
        raise KeyError
    with folder_lock(tmp_path / "new", wait=True) as mine:
        assert mine
    assert list((tmp_path / "new").iterdir()) == []


def test_where_a_file_system_has_no_locks_the_run_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    import fcntl

    def no_locks(*_arguments: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with folder_lock(tmp_path, wait=False) as free:
        assert free
    assert f"{tmp_path} cannot be locked" in caplog.text
