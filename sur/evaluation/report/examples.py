"""The pictures that a report shows, each with its scores and the facts that the oracle finds wrong in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sur.evaluation.judges.oracle import wrong_facts
from sur.evaluation.pictures import read_picture
from sur.evaluation.prompts.prompts import Condition, PromptSet
from sur.evaluation.prompts.sets import prompt_sets
from sur.evaluation.results import Evaluation, Single, read_singles
from sur.evaluation.subject import Subject
from sur.shapes.scenes import Scene
from sur.support.errors import ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One prompt and its first picture (a PNG) under each condition.

    wrong: the facts that do not hold in each picture (or a remark that it cannot be read), None for prompts without a
    scene for the oracle. scores: the other judges' values.
    """

    narrative: str
    complex: str | None
    pictures: Mapping[Condition, Path]
    wrong: Mapping[Condition, tuple[str, ...]] | None
    scores: Mapping[Condition, Mapping[str, float]]


def read_examples(subject: Subject, evaluation: Evaluation) -> dict[str, list[Example]]:
    """The first prompts of each set: at most evaluate.examples of them, and only as far as their pictures exist."""
    singles = read_singles(subject.folder)
    return {
        prompt_set.name: list(_of_set(subject, prompt_set, Path(evaluation.pictures), singles))
        for prompt_set in prompt_sets(subject.settings)
    }


def _of_set(subject: Subject, prompt_set: PromptSet, root: Path, singles: list[Single]) -> Iterator[Example]:
    known = {single.id: single for single in singles if single.set == prompt_set.name}
    for prompt in prompt_set.prompts[: subject.settings.examples]:
        single = known.get(prompt.id)
        if single is None:
            return
        paths: dict[Condition, Path] = {c: root / files[0] for c, files in single.pictures.items()}
        if not all(path.is_file() for path in paths.values()):
            return
        wrong: dict[Condition, tuple[str, ...]] | None = None
        if prompt.scene is not None:
            wrong = {c: _wrong(prompt.scene, path) for c, path in paths.items()}
        scores: dict[Condition, dict[str, float]] = {
            c: {name: values[c][0] for name, values in single.scores.items() if name != "oracle" and c in values}
            for c in paths
        }
        yield Example(single.narrative, single.complex, paths, wrong, scores)


def _wrong(scene: Scene, path: Path) -> tuple[str, ...]:
    try:
        return wrong_facts(scene, read_picture(path))
    except ConfigError as error:
        _log.warning("%s", error)
        return ("the picture cannot be read",)
