"""Sweeps: names, one store, runs that fail or are done already, and the comparison."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from PIL import Image
from tiny_training import tiny_store
from typer.testing import CliRunner

from sur.cache import Store
from sur.cli.app import app
from sur.config.load import save_config
from sur.config.run_folder import RunFolder
from sur.evaluation.results import Evaluation, Gap, ScoreRow, adapter_scores
from sur.evaluation.statistics import Interval
from sur.training.fit import fit
from sur.training.sweep.report import over_seeds, write_comparison
from sur.training.sweep.runs import Outcome, final_losses, run_name, run_sweep, sweep_runs

LAYERS = "loss.distillation.layer=1,3"
VALIDATED = "train.validation_fraction=0.3", "train.validate_every=4", "train.validation_batches=1"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A config file of an extracted tiny run, with every setting in it."""
    return save_config(tiny_store(tmp_path_factory.mktemp("sweep"), *VALIDATED))


def test_there_is_a_run_for_every_combination_on_one_store(path):
    runs = sweep_runs(path, ["train.steps=3"], [LAYERS, "loss.alignment.weight=0.5,1"], seeds=[0, 1])
    assert [run.name for run in runs][:3] == [
        "layer=1_weight=0.5_seed=0", "layer=1_weight=0.5_seed=1", "layer=1_weight=1_seed=0",
    ]  # fmt: skip
    assert len({run.config.run_dir for run in runs}) == len(runs) == 8
    assert len({run.config.store.path for run in runs}) == 1
    last = runs[-1].config
    assert (last.loss.distillation.layer, last.loss.alignment.weight, last.train.seed, last.train.steps) == (3, 1, 1, 3)


def test_keys_with_one_end_are_told_apart(path):
    (run,) = sweep_runs(path, [], ["loss.alignment.weight=2", "loss.distillation.weight=3"])
    assert run.name == "alignment.weight=2_distillation.weight=3"


@pytest.mark.parametrize(
    ("over", "seeds", "message"),
    [
        ([], [], "nothing to sweep"),
        (["loss.alignment.weight"], [], "must look like section.key=value,value"),
        (["loss.alignment.weight="], [], "must look like"),
        (["loss.alignment.weight=[1"], [], "must look like"),
        (["train.seed=1,2"], [0], "train.seed is swept twice"),
        (["train.beta2=0.9,0.9"], [], "every value once"),
        (["store.path=a,b"], [], "cannot be swept"),
        (["loss.alignment.wieght=1"], [], "did you mean 'loss.alignment.weight'"),
        (["loss.alignment.weight=1,-1"], [], "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_trained(path, over, seeds, message):
    with pytest.raises(ValueError, match=message):
        sweep_runs(path, [], over, seeds)


def test_a_name_stays_in_its_folder_whatever_the_value():
    names = [run_name({"model": value}) for value in ("/models/a", "/models-a", "../..", "a\nb", "x" * 500)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("model=") and "/" not in name and len(name) < 120 for name in names)
    assert run_name({"form": "tokens", "layers": [1, 2]}) == run_name({"form": "tokens", "layers": [1, 2]})


def test_a_run_that_fails_does_not_end_the_others_and_done_ones_are_not_trained_again(path):
    runs = sweep_runs(path, [], ["loss.distillation.layer=1,2,3"])
    before = {name: Store.open(runs[0].config.store.path).describe() for name in ("store",)}
    outcomes = run_sweep(runs, fit)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert "layer is 2, but llm.layers has only [1, 3]" in (outcomes[1].error or "")
    assert [outcome.step for outcome in outcomes] == [6, 0, 6]
    assert outcomes[0].measured != outcomes[2].measured
    assert before == {"store": Store.open(runs[0].config.store.path).describe()}
    steps = []
    assert run_sweep(runs, lambda config: fit(config, steps.append)) == outcomes
    assert steps == []


def test_a_stopped_sweep_goes_on_where_it_was(path):
    runs = sweep_runs(path, ["train.beta2=0.9"], [LAYERS], seeds=[3])
    steps = []

    def stopping(config):
        def on_step(step):
            steps.append((config.run_dir.name, step.step))
            if len(steps) == 8:
                os.kill(os.getpid(), signal.SIGINT)

        return fit(config, on_step)

    with pytest.raises(KeyboardInterrupt):
        run_sweep(runs, stopping)
    outcomes = run_sweep(runs, stopping)
    assert [outcome.step for outcome in outcomes] == [6, 6]
    assert steps == [(run.name, step) for run in runs for step in range(1, 7)]


def test_losses_are_those_of_what_is_published_without_their_weights(path):
    run, patient = (
        sweep_runs(path, overrides, ["loss.alignment.weight=0.5"], seeds=[seed])[0]
        for seed, overrides in ((5, []), (6, ["train.patience=1", "train.validate_every=1", "train.learning_rate=0.5"]))
    )
    for each in (run, patient):
        fit(each.config)
    curves = [json.loads(line) for line in (run.config.run_dir / "curves.jsonl").read_text().splitlines()]
    last = next(record["validation"] for record in reversed(curves) if "validation" in record)
    assert final_losses(run.config) == {
        "validation/alignment": last["alignment"] / 0.5,
        "validation/denoising": last["denoising"] / 0.5,
        "validation/distillation": last["distillation"],
    }
    curves = [json.loads(line) for line in (patient.config.run_dir / "curves.jsonl").read_text().splitlines()]
    best = min((r["validation"] for r in curves if "validation" in r), key=lambda losses: sum(losses.values()))
    assert final_losses(patient.config)["validation/distillation"] == best["distillation"]
    newest = RunFolder(patient.config.run_dir).latest_checkpoint()
    assert newest is not None and newest.name != "step-000006"


def made_up() -> list[Outcome]:
    def outcome(layer, weight, seed, value):
        values = {"layer": layer, "weight": weight, "seed": seed}
        return Outcome(
            name=run_name(values), values=values, step=6, measured={"validation/a": value, "set | right": 0.5}
        )

    found = [outcome(i, w, s, i + w + s) for i in (1, 3) for w in (0.5, 1) for s in (0, 1)]
    return [*found, Outcome(name="layer=9", values={"layer": 9, "weight": 1, "seed": 0}, error="ValueError: a | b\nc")]


def test_the_comparison_is_a_table_in_three_forms_and_a_picture(tmp_path):
    target = write_comparison(tmp_path, made_up())
    assert {path.name for path in tmp_path.iterdir()} == {f"comparison.{kind}" for kind in ("md", "csv", "json", "png")}
    lines = target.read_text().splitlines()
    assert "| layer | weight | seed | step | validation/a | set \\| right | folder | error |" in lines
    assert "| 9 | 1 | 0 | 0 |  |  | layer=9 | ValueError: a \\| b c |" in lines
    assert "| 3 | 0.5 | 2 | 4 [3.5, 4.5] | 0.5 [0.5, 0.5] |" in lines
    with target.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9 and rows[0]["validation/a"] == "1.5"
    assert json.loads(target.with_suffix(".json").read_text())[0]["measured"]["validation/a"] == 1.5
    with Image.open(target.with_suffix(".png")) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_failed_runs_do_not_count_over_seeds():
    header, lines = over_seeds(made_up())
    assert header == ["layer", "weight", "seeds", "validation/a", "set | right"]
    assert [line[:3] for line in lines][-1] == ["9", "1", "0"]


def test_an_evaluation_s_scores_are_the_adapter_s_on_all_questions():
    def interval(value: float) -> Interval:
        return Interval(value=value, low=0, high=1)

    rows = [
        ScoreRow(set="synonyms", group=g, scorer="oracle", condition=c, prompts=4, pictures=4, score=interval(v))
        for g, c, v in (("all", "adapter", 0.75), ("all", "narrative", 0.25), ("counts", "adapter", 0.1))
    ]
    gaps = [Gap(set="synonyms", group="all", scorer="oracle", closed=interval(0.6))]
    empty = {
        "digest": "",
        "adapter": "",
        "adapter_fingerprint": "",
        "weight": None,
        "pictures": "",
        "sets": [],
        "scorers": [],
        "comparisons": [],
    }
    found = adapter_scores(Evaluation(rows=rows, gaps=gaps, **empty))
    assert found == {"synonyms oracle": 0.75, "synonyms oracle closed": 0.6}


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_the_command_trains_compares_and_fails_when_a_run_has(path):
    done = CliRunner().invoke(app, ["sweep", str(path), "--over", "loss.distillation.layer=1,2", "--seeds", "7"])
    assert done.exit_code == 2, done.output
    folder = path.parent / "sweep"
    assert f"comparison: {folder / 'comparison.md'}" in done.output
    assert "1 of 2 runs failed" in done.output
    assert (folder / "layer=1_seed=7" / "adapter" / "config.json").is_file()
    assert (folder / "layer=1_seed=7" / "config.yaml").is_file()
    for options, message in ((["--evaluate"], "needs evaluate.sets"), (["--seeds", "a"], "must look like 0,1,2")):
        refused = CliRunner().invoke(app, ["sweep", str(path), *options])
        assert message in str(refused.exception)


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_evaluated_runs_have_their_scores_in_the_comparison_and_a_report_each(own_config):
    options = ["train.steps=2", "--over", "loss.alignment.weight=1,2", "--evaluate"]
    done = CliRunner().invoke(app, ["sweep", str(save_config(own_config)), *options])
    assert done.exit_code == 0, done.output
    folder = own_config.run_dir / "sweep"
    found = json.loads((folder / "comparison.json").read_text())
    wanted = {"templates oracle", "templates oracle closed", "synonyms oracle"}
    assert [wanted <= set(run["measured"]) for run in found] == [True] * 2
    assert all((folder / run["name"] / "report.html").is_file() for run in found)
