"""Two real processes train to the weights of one that takes all the rows."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import tiny_store, training_process, variant

from sur.config.load import save_config
from sur.config.run_folder import RunFolder
from sur.flows.runtime.launch import run_flow
from sur.training.distributed import average_gradients
from sur.training.fit import fit

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ALIKE = """
import hashlib, sys
from sur.training.batches import needed_features, open_loader, row_batches
from sur.config.run import load_config
from sur.training.setup import build_training
from sur.cache import Store
config = load_config(sys.argv[1])
store = Store.open(config.store.path)
loader = open_loader(store, config, "train")
training = build_training(store, config, loader.manifest_slots)
batches = row_batches(loader.forever(), needed_features(config), 0, loader.order.rank, loader.order.world_size)
names = sorted({name for step in training.run(batches) for name in step.losses})
learnt = {**training.adapter.state_dict(), **training.objective.learned()}
digest = hashlib.sha256(b"".join(learnt[name].numpy().tobytes() for name in sorted(learnt))).hexdigest()
sys.stdout.write(f"{digest} {names}\\n")
"""
ROUNDING = 1e-6  # the largest weight moves by about 2e-3 in these steps


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("processes"))


def finished(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 0, text
    return text


def weights(config) -> dict[str, torch.Tensor]:
    """All that the newest checkpoint has learnt, without what has no gradient but rounding (biases of keys)."""
    newest = RunFolder(config.run_dir).latest_checkpoint()
    found = load_file(newest / "adapter" / "adapter.safetensors")
    learnt = {n: v for n, v in load_file(newest / "state.safetensors").items() if n.startswith("objective.")}
    for name, value in found.items():
        if name.endswith("in_proj_bias"):
            found[name] = value.view(3, -1)[[0, 2]]
    return found | learnt


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def records(config) -> list[dict]:
    return [json.loads(line) for line in (config.run_dir / "curves.jsonl").read_text().splitlines()]


def test_gradients_are_left_alone_where_there_is_one_process():
    with_gradient, without = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    with_gradient.sum().backward()
    average_gradients([with_gradient, without])
    assert with_gradient.grad is not None and without.grad is None


def test_a_flow_that_is_for_one_process_is_refused_in_several(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="flow extract is for one process"):
        run_flow("extract", config)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_the_doubled_batch(config):
    one = variant(config, "one", train={"batch_size": 8})
    two = variant(config, "two", train={"batch_size": 4, "device": "cpu"})
    fit(one)
    printed = finished(training_process(two, *TWO))
    assert sorted(printed.split()) == sorted([str(step) for step in range(1, 7)] * 2)
    assert furthest(weights(one), weights(two)) < ROUNDING
    for whole, parts in zip(records(one), records(two), strict=True):
        assert parts["train"] == pytest.approx(whole["train"], rel=1e-5)
    other = variant(config, "other", train={"batch_size": 8, "seed": 1})
    fit(other)
    assert furthest(weights(one), weights(other)) > 100 * ROUNDING
    with pytest.raises(ValueError, match="trained by 2 processes, now there are 1"):
        fit(two)


@pytest.mark.slow
def test_processes_stay_alike_when_the_teacher_stops_learning_and_the_learners_are_averaged(own_config):
    train = own_config.train.model_copy(update={"batch_size": 4, "accumulate": 2, "steps": 5, "device": "cpu"})
    program = own_config.run_dir.parent / "program.py"
    program.write_text(ALIKE)
    path = save_config(own_config.model_copy(update={"train": train}))
    text = subprocess.run([sys.executable, *TWO, str(program), str(path)], capture_output=True, text=True, timeout=180)
    lines = text.stdout.split("\n")[:-1]
    assert len(lines) == 2 and lines[0] == lines[1], text.stderr
    assert "teacher" in lines[0] and "distillation" in lines[0]


@pytest.mark.slow
def test_two_processes_that_are_asked_to_stop_save_once_and_go_on_to_the_same_weights(config):
    train = {"batch_size": 2, "accumulate": 2, "device": "cpu", "save_every": 0, "steps": 40}
    whole, stopped = variant(config, "whole", train=train), variant(config, "stopped", train=train)
    finished(training_process(whole, *TWO))
    process = training_process(stopped, *TWO)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 3:
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=120)
    assert process.returncode != 0
    (saved,) = (stopped.run_dir / "checkpoints").iterdir()
    assert 3 <= int(saved.name.removeprefix("step-")) < 40
    finished(training_process(stopped, *TWO))
    assert furthest(weights(whole), weights(stopped)) == 0
    assert records(whole) == records(stopped)


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_the_flow_under_accelerate_launch_reports_to_prefect_from_the_first_process_alone(config):
    run = variant(config, "launched", train={"batch_size": 4, "steps": 2})
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "sur.flows.train", str(save_config(run))]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (run.run_dir / "adapter" / "config.json").is_file()
    assert done.stderr.count("starting Prefect") == 1
