"""A run folder with made-up scores and pictures."""

from __future__ import annotations

import numpy as np
import pytest

from sur.cache import Store
from sur.config.run import load_config
from sur.evaluation import Evaluation
from sur.evaluation.prompts.prompts import CONDITIONS
from sur.evaluation.prompts.sets import prompt_sets
from sur.evaluation.results import Gap, PromptSetInfo, ScorerInfo, ScoreRow, Single, write_result
from sur.evaluation.statistics import Interval
from sur.shapes.questions import QUESTION_GROUPS, SET_MEANINGS
from sur.shapes.scenes import Scene, Thing, render_scene

SET_NAMES = ("templates", "synonyms")


ELSE = Scene(Thing("white", "cross"), 4)  # shows none of the questions below


ORACLE = ScorerInfo(name="oracle", meaning="share of right ones", higher_is_better=True, top=1.0)


WRONG = {("templates", 0, "narrative"), ("synonyms", 0, "narrative"), ("synonyms", 1, "adapter")}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder inside the working directory: an empty store, two questions of each set with pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        "{run_dir: runs/one, base_model: sur/shapes/weights, data: {path: runs/one/data}, "
        "evaluate: {sets: [templates, synonyms], prompts: 8, examples: 2, resamples: 100}}"
    )
    config = load_config("run.yaml")
    Store.create(config.store.path)
    return config


@pytest.fixture
def evaluation(run, tmp_path) -> Evaluation:
    """Made-up scores of every set, group and condition, in no particular order; pictures of what was asked, or not."""
    keys = [(s, g, c) for s in SET_NAMES for g in ("all", *QUESTION_GROUPS) for c in CONDITIONS][::-1]
    some = Interval(value=0.5, low=0.25, high=0.75)
    rows = [
        ScoreRow(set=s, group=g, scorer="oracle", condition=c, prompts=8, pictures=8, score=some, fit=0.9, frechet=1.0)
        for s, g, c in keys
    ]
    gaps = [Gap(set=s, group=g, scorer="oracle", closed=some) for s in SET_NAMES for g in ("all", *QUESTION_GROUPS)]
    made = Evaluation(
        digest="", adapter=str(tmp_path / "runs/one/adapter"), pictures=str(run.run_dir / "pictures"), rows=rows,
        gaps=gaps, comparisons=[], scorers=[ORACLE], adapter_fingerprint="", weight=None,
        sets=[PromptSetInfo(name=s, meaning=SET_MEANINGS[s], groups=QUESTION_GROUPS) for s in SET_NAMES],
    )  # fmt: skip
    write_result(run.run_dir, made, list(draw(run)))
    return made


def draw(run):
    """Two pictures a set and condition: what was asked, or what is in WRONG."""
    for asked in prompt_sets(run.evaluate):
        for index, prompt in enumerate(asked.prompts[:2]):
            files = {c: f"{asked.name}-{index}-{c}.png" for c in CONDITIONS}
            for condition, name in files.items():
                file = run.run_dir / "pictures" / name
                file.parent.mkdir(exist_ok=True)
                scene = ELSE if (asked.name, index, condition) in WRONG else prompt.scene
                render_scene(scene, np.random.default_rng(index)).save(file)
            yield Single(
                set=asked.name, id=prompt.id, groups=prompt.groups, narrative=prompt.narrative, complex=prompt.complex,
                pictures={c: [name] for c, name in files.items()}, scores={},
            )  # fmt: skip
