"""Trainings whose run folder takes no files: one line that names the place, and nothing else is lost."""

import subprocess
import sys

import pytest
from tiny_training import tiny_store, variant

from sur.config.load import save_config
from sur.config.run_folder import RunFolder
from sur.support.errors import shown_message
from sur.training.fit import fit


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("disk"))


@pytest.mark.parametrize("name", ["config.yaml", "curves.jsonl", "manifest.safetensors"])
def test_a_folder_in_a_file_s_place_is_told(store, name):
    config = variant(store, f"folder-{name}")
    (config.run_dir / name / "inside").mkdir(parents=True)
    with pytest.raises(Exception) as raised:
        fit(config, on_begin=lambda: save_config(config))
    assert str(config.run_dir / name) in (shown_message(raised.value) or repr(raised.value))


@pytest.mark.parametrize("name", ["checkpoints", "adapter"])
def test_a_file_in_a_folder_s_place_is_told(store, name):
    config = variant(store, f"file-{name}")
    config.run_dir.mkdir()
    (config.run_dir / name).write_text("a file")
    with pytest.raises(Exception) as raised:
        fit(config)
    assert str(config.run_dir / name) in (shown_message(raised.value) or repr(raised.value))
    assert (config.run_dir / name).read_text() == "a file"


PROGRAM = """
import resource, sys
from sur.config.run import load_config
from sur.support.ending import told
from sur.training.fit import fit
config = load_config(sys.argv[1])
def limit(step):
    if step.step == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    fit(config, limit)
except Exception as error:
    sys.exit(told(error))
"""


@pytest.mark.parametrize("most_bytes", [0, 3000, 20_000])
def test_a_checkpoint_that_the_disk_does_not_take_leaves_the_older_ones_and_one_line(store, most_bytes):
    train = {"save_every": 2, "keep_checkpoints": 1, "log_every": 1, "steps": 6}
    config = variant(store, f"limit-{most_bytes}", train=train)
    command = [sys.executable, "-c", PROGRAM, str(save_config(config)), str(most_bytes)]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert last.startswith("error: ") and str(config.run_dir) in last and "ulimit -f" in last
    assert "Traceback" not in done.stderr
    assert [path.name for path in RunFolder(config.run_dir).checkpoints.iterdir()] == ["step-000002"]
    steps = []
    fit(config, lambda step: steps.append(step.step))
    assert steps == [3, 4, 5, 6]
