"""Damaged checkpoints: training goes on from the older one, with a warning, to the weights of an undisturbed run."""

import json
import logging
import os
import shutil
import signal

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_training import tiny_store, variant

from sur.config.run_folder import RunFolder
from sur.support.checksums import sealed
from sur.support.errors import DamagedFile
from sur.support.signals import Stopped
from sur.training.checkpoint import usable_checkpoint
from sur.training.fit import fit

TRAIN = {"steps": 8, "save_every": 2, "keep_checkpoints": 2, "batch_size": 4, "ema_decay": 0.5}
FILES = ["state.json", "state.safetensors", "adapter/config.json", "adapter/adapter.safetensors"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("damaged"))


@pytest.fixture(scope="module")
def stopped(store):
    """A run that was stopped at step 5, with the checkpoints 4 and 5, and the same run undisturbed."""
    run, whole = variant(store, "stopped", train=TRAIN), variant(store, "whole", train=TRAIN)
    fit(whole)
    with pytest.raises(Stopped):
        fit(run, lambda step: os.kill(os.getpid(), signal.SIGINT) if step.step == 5 else None)
    return run, load_file(RunFolder(whole.run_dir).adapter / "adapter.safetensors")


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of the stopped run; returns its configuration and folder."""
    shutil.copytree(stopped[0].run_dir, tmp_path / "run")
    config = stopped[0].model_copy(update={"run_dir": tmp_path / "run"})
    return config, RunFolder(config.run_dir)


def flip(path, seed: int) -> None:
    random = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    content[random.integers(len(content))] ^= 1 << random.integers(8)
    path.write_bytes(content)


def without_checksums(checkpoint) -> None:
    """The checkpoint as an older version wrote it."""
    for path, keys in ((checkpoint / "state.json", ["sha256", "files"]),
                       (checkpoint / "adapter" / "config.json", ["sha256", "weights_sha256"])):  # fmt: skip
        content = json.loads(path.read_text())
        for key in keys:
            del content[key]
        path.write_text(json.dumps(content))


DAMAGES = {
    **{f"a flipped bit in {name}": lambda folder, name=name: flip(folder / name, len(name)) for name in FILES},
    **{f"without {name}": lambda folder, name=name: (folder / name).unlink() for name in FILES},
    "an empty state.json": lambda folder: (folder / "state.json").write_bytes(b""),
    "half a state": lambda folder: os.truncate(folder / "state.safetensors", 1000),
    "no files": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_training_goes_on_from_the_older_checkpoint(run, stopped, damage, caplog):
    config, folder = run
    damage(folder.checkpoint(5))
    steps = []
    with caplog.at_level(logging.WARNING):
        fit(config, lambda step: steps.append(step.step))
    assert steps == [5, 6, 7, 8]
    assert any(
        "step-000005" in line and f"goes on from the older {folder.checkpoint(4)}" in line for line in caplog.messages
    )
    weights = load_file(folder.adapter / "adapter.safetensors")
    assert all((weights[name] == value).all() for name, value in stopped[1].items())


def test_a_damaged_checkpoint_pushes_no_whole_one_out_and_is_kept_for_a_look(run):
    config, folder = run
    flip(folder.checkpoint(5) / "state.safetensors", 3)
    folder.checkpoint(5).rename(folder.checkpoint(7))
    config = config.model_copy(update={"train": config.train.model_copy(update={"keep_checkpoints": 1})})
    with pytest.raises(Stopped):
        fit(config, lambda step: os.kill(os.getpid(), signal.SIGINT) if step.step == 5 else None)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == [".step-000007.damaged", "step-000005"]
    assert usable_checkpoint(folder) == folder.checkpoint(5)


def test_when_every_checkpoint_is_damaged_nothing_is_begun_anew(run):
    config, folder = run
    for step in (4, 5):
        flip(folder.checkpoint(step) / "state.safetensors", step)
    with pytest.raises(
        DamagedFile, match=r"step-000005.* is damaged: .*No older checkpoint is whole; remove .* to start over"
    ):
        fit(config)


def test_checkpoints_without_checksums_are_gone_on_from_unless_they_are_cut(run):
    config, folder = run
    without_checksums(folder.checkpoint(4))
    without_checksums(folder.checkpoint(5))
    assert usable_checkpoint(folder) == folder.checkpoint(5)
    os.truncate(folder.checkpoint(5) / "adapter" / "adapter.safetensors", 2000)
    steps = []
    fit(config, lambda step: steps.append(step.step))
    assert steps == [5, 6, 7, 8]


def test_damaged_weights_of_the_best_step_are_not_published(store):
    patient = {**TRAIN, "validation_fraction": 0.2, "validate_every": 2, "validation_batches": 1, "patience": 50}
    config = variant(store, "patient", train=patient)
    fit(config)
    folder = RunFolder(config.run_dir)
    newest = folder.checkpoint(8) / "state.json"
    content = json.loads(newest.read_text())
    del content["sha256"]
    newest.write_text(sealed({**content, "best": {**content["best"], "step": 6}}))
    fit(config)
    best = folder.checkpoint(6) / "adapter" / "adapter.safetensors"
    assert (folder.adapter / "adapter.safetensors").read_bytes() == best.read_bytes()
    flip(best, 1)
    with pytest.raises(DamagedFile, match=r"best validation cannot be published.*or publish the last weights"):
        fit(config)
