"""Early stop: it ends when validations no longer improve, publishes the best, and resumes to the same end."""

import json
import os
import signal
from math import nan

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import tiny_store, variant

from sur.training.fit import fit
from sur.training.validation import Best, update_best

TRAIN = {
    "steps": 60, "learning_rate": 0.1, "schedule": "constant", "validation_fraction": 0.3, "validate_every": 2,
    "validation_batches": 1, "log_every": 100, "save_every": 3, "keep_checkpoints": 1, "patience": 3,
}  # fmt: skip


def test_the_best_is_the_lowest_sum_and_counts_what_came_since():
    best = update_best(None, 1, {"a": 2.0, "b": 1.0})
    assert best == Best(1, 3.0, ("a", "b"))
    best = update_best(best, 2, {"a": 1.0, "b": 1.5})
    assert best == Best(2, 2.5, ("a", "b"))
    best = update_best(update_best(best, 3, {"a": 1.0, "b": 1.5}), 4, {"a": nan, "b": 0.0})
    assert best == Best(2, 2.5, ("a", "b"), since=2)
    assert update_best(update_best(None, 1, {"a": nan}), 2, {"a": 9.0}).step == 2


def test_the_best_starts_anew_when_a_loss_sets_in():
    best = update_best(update_best(None, 1, {"teacher": 0.5}), 2, {"teacher": 0.1, "distillation": 4.0})
    assert best == Best(2, 4.1, ("distillation", "teacher"))


def test_the_best_survives_a_checkpoint():
    best = update_best(None, 5, {"b": 0.1, "a": 1 / 3})
    assert Best.from_json(json.loads(json.dumps(best.as_json()))) == best
    assert Best.from_json(None) is None


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("patience"))


@pytest.fixture(scope="module")
def ended(config):
    """A run that its patience ended, and the folder of its adapter."""
    run = variant(config, "ended", train=TRAIN)
    return run, fit(run)


def validations(run) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (run.run_dir / "curves.jsonl").read_text().splitlines()]
    return [(r["step"], sum(r["validation"].values())) for r in records if "validation" in r]


def test_training_ends_after_so_many_validations_without_improvement_and_publishes_the_best(ended):
    run, folder = ended
    seen = validations(run)
    best = min(seen, key=lambda each: each[1])[0]
    assert seen[-1][0] == best + 3 * 2 < 60
    checkpoint = run.run_dir / "checkpoints" / f"step-{best:06d}" / "adapter" / "adapter.safetensors"
    assert (folder / "adapter.safetensors").read_bytes() == checkpoint.read_bytes()
    kept = {path.name for path in (run.run_dir / "checkpoints").iterdir()}
    assert kept == {f"step-{best:06d}", f"step-{seen[-1][0]:06d}"}
    last = load_file(run.run_dir / "checkpoints" / f"step-{seen[-1][0]:06d}" / "adapter" / "adapter.safetensors")
    assert any(not torch.equal(last[name], value) for name, value in load_file(checkpoint).items())


def test_an_ended_run_is_not_trained_again_but_more_patience_goes_on(ended):
    run, _ = ended
    steps = []
    fit(run, lambda step: steps.append(step.step))
    assert steps == []
    with pytest.raises(KeyboardInterrupt):
        fit(variant(run, "ended", train={"patience": 9}), lambda _: os.kill(os.getpid(), signal.SIGINT))


def test_a_run_stopped_between_validations_ends_at_the_same_step_with_the_same_weights(config, ended):
    run, folder = ended
    stopped = variant(config, "stopped", train=TRAIN)
    final = validations(run)[-1][0]

    def stop(step) -> None:
        if step.step in (3, final - 1):
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(stopped, stop)
    again = fit(stopped)
    assert validations(stopped) == validations(run)
    assert (again / "adapter.safetensors").read_bytes() == (folder / "adapter.safetensors").read_bytes()
