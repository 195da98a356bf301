"""A training killed again and again in real processes ends as one that nobody disturbed, byte for byte."""

import random

import pytest
from tiny_training import tiny_store, training_process, variant

from sur.cache import Manifest
from sur.config.run_folder import RunFolder

TRAIN = {
    "steps": 23, "batch_size": 3, "accumulate": 3, "ema_decay": 0.9, "validation_fraction": 0.2, "validate_every": 4,
    "validation_batches": 1, "save_every": 2, "log_every": 1, "patience": 50,
    "optimiser": "muon",  # and AdamW for what is no matrix
}  # fmt: skip


@pytest.mark.slow
def test_a_training_killed_at_random_steps_ends_as_an_undisturbed_one(tmp_path):
    config = tiny_store(tmp_path)
    whole, killed = variant(config, "whole", train=TRAIN), variant(config, "killed", train=TRAIN)
    training_process(whole).communicate(timeout=300)
    reached = []
    for last in sorted(random.sample(range(2, 22), 3)):
        process = training_process(killed)
        assert process.stdout is not None
        for line in process.stdout:
            reached.append(int(line))
            if reached[-1] >= last:
                process.kill()
                break
        process.communicate(timeout=300)
    training_process(killed).communicate(timeout=300)
    newest = RunFolder(whole.run_dir).latest_checkpoint()
    assert newest is not None and newest.name == "step-000023"
    files = [path.relative_to(whole.run_dir) for path in newest.rglob("*") if path.is_file()]
    assert len(files) == 4, files  # adapter (the average), its config, state (adapter, optimiser, projection), best
    for file in [*files, "curves.jsonl"]:
        assert (whole.run_dir / file).read_bytes() == (killed.run_dir / file).read_bytes(), (file, reached)
    manifests = [Manifest.load(run.run_dir / "manifest.safetensors") for run in (whole, killed)]
    assert manifests[0].digest == manifests[1].digest
    kept = [sorted(path.name for path in (run.run_dir / "checkpoints").iterdir()) for run in (whole, killed)]
    assert kept[0] == kept[1]
