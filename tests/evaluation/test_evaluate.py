"""An evaluation end to end: kept while nothing changes, drawn once, the same whole or killed, every score written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from small_evaluation import WEIGHTS, files_of, moved_adapter, subject_in
from small_settings import CONFIGS, SMALL

from sur.adapter.adapter import Adapter
from sur.adapter.generate import generate, load_pipeline
from sur.config.evaluation import EvaluateConfig
from sur.config.run import load_config
from sur.config.run_folder import RunFolder
from sur.evaluation import Subject, evaluate, kept_evaluation
from sur.evaluation.drawing import pictures_of
from sur.evaluation.prompts.sets import prompt_sets
from sur.evaluation.report.report import write_report
from sur.evaluation.results import read_singles
from sur.shapes.oracle import detect_objects, facts
from sur.shapes.questions import questions
from sur.support.errors import ConfigError
from sur.support.timings import note_seconds, read_seconds, timed


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A run folder with an adapter and its evaluation; read-only."""
    run = tmp_path_factory.mktemp("evaluated")
    config = load_config(CONFIGS / "shapes.yaml", [*SMALL, f"run_dir={run}"])
    subject = Subject.of_run(config, moved_adapter(run / "adapter"))
    counts = []
    made = evaluate(subject, counts.append)
    assert sum(counts) == pictures_of(subject, prompt_sets(subject.settings)) == 24
    return subject, made


@pytest.fixture
def own(evaluated, tmp_path):
    """The same in a folder of the test's own."""
    subject, _ = evaluated
    shutil.copytree(subject.folder, tmp_path / "run")
    return Subject(subject.base, tmp_path / "run" / "adapter", subject.settings, tmp_path / "run")


def changed(subject: Subject, **settings) -> Subject:
    values = {**subject.settings.model_dump(), **settings}
    return Subject(subject.base, subject.adapter, EvaluateConfig(**values), subject.folder)


def test_an_unchanged_evaluation_is_kept(evaluated, own):
    kept = kept_evaluation(own)
    assert kept is not None
    places = {"adapter", "pictures"}
    assert kept.model_dump_json(exclude=places) == evaluated[1].model_dump_json(exclude=places)
    assert kept.adapter == str(own.adapter)
    assert kept.pictures == str(own.folder / "pictures")


def test_other_weights_are_evaluated_anew_from_the_same_base_pictures(own):
    before = files_of(own.folder)
    moved_adapter(own.adapter, seed=1)
    again = Subject(own.base, own.adapter, own.settings, own.folder)
    assert kept_evaluation(again) is None
    evaluate(again)
    after = files_of(own.folder)
    assert set(before) < set(after) and {name: after[name] for name in before} == before
    assert len(after) - len(before) == 8  # the adapter's of two sets of four


def test_another_base_model_is_evaluated_anew(own, tmp_path):
    shutil.copytree(WEIGHTS, tmp_path / "base")
    same = Subject((str(tmp_path / "base"), None), own.adapter, own.settings, own.folder)
    assert kept_evaluation(same) is not None
    scheduler = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + "\n")
    other = Subject(same.base, own.adapter, own.settings, own.folder)
    assert kept_evaluation(other) is None
    prompt = prompt_sets(own.settings)[0].prompts[0]
    assert same.recipe(prompt, "narrative", 0, 0).key != other.recipe(prompt, "narrative", 0, 0).key


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": 5},
        {"seed": 1},
        {"steps": 4},
        {"guidance": 2.0},
        {"sets": ()},
        {"weight": 0.5},
        {"seeds_per_prompt": 2},
    ],
)
def test_other_settings_are_evaluated_anew(own, settings):
    assert kept_evaluation(changed(own, **settings)) is None


def test_what_lacks_a_picture_of_its_report_or_a_result_is_evaluated_anew(own):
    shown = read_singles(own.folder)[1]
    for lost in (
        own.folder / "pictures" / shown.pictures["adapter"][0],
        RunFolder(own.folder).scores,
        RunFolder(own.folder).evaluation,
    ):
        content = lost.read_bytes()
        lost.unlink()
        assert kept_evaluation(own) is None
        lost.write_bytes(content)
    assert kept_evaluation(own) is not None


def test_a_result_of_another_version_is_evaluated_anew(own):
    RunFolder(own.folder).evaluation.write_text('{"adapter": "x", "rows": [], "gaps": []}')
    assert kept_evaluation(own) is None


def test_pictures_are_those_of_the_pipeline_and_scores_those_of_the_oracle(evaluated):
    subject, made = evaluated
    asked = questions("templates", 4, 0)
    pipe, adapter = load_pipeline(WEIGHTS), Adapter.from_pretrained(subject.adapter)
    singles = [each for each in read_singles(subject.folder) if each.set == "templates"]
    for condition, worn in (("narrative", None), ("adapter", adapter), ("complex", None)):
        texts = [q.complex if condition == "complex" else q.narrative for q in asked]
        expected = generate(pipe, texts, list(range(4)), worn, steps=3, guidance=3.0)
        right = [all(facts(q.scene, detect_objects(p)).values()) for q, p in zip(asked, expected, strict=True)]
        assert [each.scores["oracle"][condition] for each in singles] == [[float(each)] for each in right]
        for single, picture in zip(singles, expected, strict=True):
            with Image.open(subject.folder / "pictures" / single.pictures[condition][0]) as stored:
                assert np.array_equal(np.asarray(stored), np.asarray(picture))
                assert json.loads(stored.info["recipe"])["prompt"] == texts[singles.index(single)]
        row = next(r for r in made.rows if (r.set, r.group, r.condition) == ("templates", "all", condition))
        assert row.score.value == np.mean(right) and row.pictures == 4 and row.frechet is None


def test_more_noises_a_prompt_leave_the_first_ones_alone(own):
    first = files_of(own.folder)
    twice = changed(own, seeds_per_prompt=2, sets=("templates",))
    made = evaluate(twice)
    singles = read_singles(own.folder)
    assert all(len(files) == 2 for single in singles for files in single.pictures.values())
    assert {single.pictures["adapter"][0].rpartition("/")[2] for single in singles} < set(first)
    assert {(row.prompts, row.pictures) for row in made.rows if row.group == "all"} == {(4, 8)}
    pair = singles[0].pictures["narrative"]
    with Image.open(own.folder / "pictures" / pair[0]) as a, Image.open(own.folder / "pictures" / pair[1]) as b:
        assert a.info["recipe"] != b.info["recipe"] and not np.array_equal(np.asarray(a), np.asarray(b))


def test_the_dial_at_zero_is_the_narrative(tmp_path):
    moved_adapter(tmp_path / "adapter")
    made = evaluate(subject_in(tmp_path, "evaluate.sets=[templates]", "evaluate.weight=0"))
    for single in read_singles(tmp_path):
        with (
            Image.open(tmp_path / "pictures" / single.pictures["narrative"][0]) as plain,
            Image.open(tmp_path / "pictures" / single.pictures["adapter"][0]) as off,
        ):
            assert np.array_equal(np.asarray(plain), np.asarray(off))
    assert {(c.wins, c.losses, c.p) for c in made.comparisons} == {(0, 0, 1.0)}


def test_a_shared_folder_of_pictures_serves_several_evaluations(tmp_path):
    for name in ("one", "two"):
        moved_adapter(tmp_path / name / "adapter")
        shared = f"evaluate.pictures={tmp_path / 'shared'}"
        evaluate(subject_in(tmp_path / name, "evaluate.sets=[templates]", shared))
        assert not (tmp_path / name / "pictures").exists()
    assert len(files_of(tmp_path / "shared")) == 12
    results = [RunFolder(tmp_path / name).scores.read_text() for name in ("one", "two")]
    assert results[0] == results[1]


def test_a_damaged_picture_is_named_with_the_remedy(own):
    lost = own.folder / "pictures" / read_singles(own.folder)[0].pictures["narrative"][0]
    lost.write_bytes(lost.read_bytes()[:60])
    RunFolder(own.folder).evaluation.unlink()
    with pytest.raises(ConfigError, match="remove it and evaluate again"):
        evaluate(own)
    lost.unlink()
    evaluate(own)


@pytest.mark.slow
@pytest.mark.xdist_group("killed")
def test_a_killed_evaluation_goes_on_and_ends_as_one_that_was_not(tmp_path):
    program = (
        "import sys; from pathlib import Path; from sur.evaluation import evaluate;"
        "from small_evaluation import subject_in;"
        "evaluate(subject_in(Path(sys.argv[1]), *sys.argv[2:]), lambda n: print('batch', flush=True))"
    )
    settings = ["evaluate.sets=[templates,synonyms]", "evaluate.batch_size=2", "evaluate.steps=6"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CONFIGS.parent / "tests" / "support"), *sys.path])}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    moved_adapter(whole / "adapter")
    evaluate(subject_in(whole, *settings))
    shutil.copytree(whole / "adapter", killed / "adapter")
    command = [sys.executable, "-c", program, str(killed), *settings]
    for pictures in (1, 7, 14):
        before = files_of(killed)
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as run:
            while run.poll() is None and len(files_of(killed)) < pictures:
                time.sleep(0.001)
            run.kill()
        assert run.returncode == -9
        found = files_of(killed)
        assert pictures <= len(found) < 24 and {name: found[name] for name in before} == before
        assert not RunFolder(killed).evaluation.exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("batch") == 12
    assert files_of(killed) == files_of(whole)
    assert list((killed / "pictures").rglob(".*")) == []
    assert RunFolder(killed).scores.read_bytes() == RunFolder(whole).scores.read_bytes()
    ours, theirs = (json.loads(RunFolder(folder).evaluation.read_text()) for folder in (killed, whole))
    assert {**ours, "adapter": "", "pictures": ""} == {**theirs, "adapter": "", "pictures": ""}


def test_what_a_killed_writer_left_is_removed_with_the_next_write(tmp_path):
    moved_adapter(tmp_path / "adapter")
    subject = subject_in(tmp_path, "evaluate.sets=[templates]")
    recipe = subject.recipe(prompt_sets(subject.settings)[0].prompts[0], "narrative", 0, 0)
    path = subject.pictures.path(recipe)
    path.parent.mkdir(parents=True)
    (path.parent / f".{path.name}.1").write_bytes(b"half")
    subject.pictures.write(recipe, Image.new("RGB", (8, 8)))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_pipeline_without_a_run_is_evaluated_on_prompts_of_a_file(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "- {id: a, category: things, narrative: somebody draws a red circle, complex: 'one red circle, 8k'}\n"
        "- {id: b, category: things, narrative: she sees two blue squares}\n"
    )
    moved_adapter(tmp_path / "adapter")
    subject = subject_in(tmp_path, f"evaluate.files=[{file}]", "evaluate.size=32")
    made = evaluate(subject)
    assert made.rows == [] and made.scorers == []
    singles = read_singles(tmp_path)
    assert [sorted(single.pictures) for single in singles] == [
        ["adapter", "complex", "narrative"],
        ["adapter", "narrative"],
    ]
    with Image.open(tmp_path / "pictures" / singles[0].pictures["narrative"][0]) as picture:
        assert picture.size == (32, 32)
    page = write_report(subject, made).read_text()
    assert page.count("<figure") == 5 and "Nothing judges these pictures" in page and "no complex prompt" in page


def test_nothing_asked_or_no_adapter_is_told_before_anything_is_drawn(tmp_path):
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(subject_in(tmp_path))
    with pytest.raises(FileNotFoundError, match="no adapter in"):
        evaluate(subject_in(tmp_path, "evaluate.sets=[templates]"))
    moved_adapter(tmp_path / "adapter")
    with pytest.raises(ConfigError, match="evaluate.clip.model '/no/such/model'"):
        evaluate(subject_in(tmp_path, "evaluate.sets=[everyday]", "evaluate.clip.model=/no/such/model"))
    assert not (tmp_path / "pictures").exists()


def test_a_judge_that_has_gone_since_is_named_too(own):
    with pytest.raises(ConfigError, match="evaluate.clip.model: there is no model at /no/such/model"):
        kept_evaluation(changed(own, clip={"model": "/no/such/model"}))


def test_a_stage_s_seconds_are_those_of_its_work(own):
    assert list(read_seconds(own.folder)) == ["evaluate"]
    note_seconds(own.folder, "train", 100.0)
    steps = iter([5, 5, 5, 9])
    config = load_config(CONFIGS / "shapes.yaml", [*SMALL, f"run_dir={own.folder}"])
    with timed(config.run_dir, "train", lambda: next(steps)):
        pass  # nothing to do: the seconds stay
    assert read_seconds(own.folder)["train"] == 100.0
    with pytest.raises(KeyboardInterrupt), timed(config.run_dir, "train", lambda: next(steps)):
        raise KeyboardInterrupt  # stopped, but it got further
    assert 100.0 <= read_seconds(own.folder)["train"] < 110.0
    steps = iter([0, 9])
    with timed(config.run_dir, "train", lambda: next(steps)):
        pass  # from the start
    assert read_seconds(own.folder)["train"] < 10.0
    assert list(read_seconds(own.folder)) == ["train", "evaluate"]
