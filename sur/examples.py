"""The pictures that an evaluation keeps, each with what the oracle finds wrong in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sur.evaluate import CONDITIONS, Condition, example_file
from sur.shapes.oracle import facts, look
from sur.shapes.questions import Question, SetName, questions

if TYPE_CHECKING:
    from sur.config import RunConfig


@dataclass(frozen=True)
class Example:
    """One question, its picture (a PNG) under every condition, and the facts that do not hold in each of them."""

    question: Question
    pictures: Mapping[Condition, Path]
    wrong: Mapping[Condition, tuple[str, ...]]


def read_examples(config: RunConfig) -> dict[str, list[Example]]:
    """The first questions of each set, as many as evaluate.examples and as pictures were kept of."""
    return {name: list(_of_set(config, name)) for name in config.evaluate.sets}


def _of_set(config: RunConfig, name: SetName) -> Iterator[Example]:
    asked = questions(name, config.evaluate.prompts, config.evaluate.seed)
    for index, question in enumerate(asked[: config.evaluate.examples]):
        paths: dict[Condition, Path] = {c: example_file(config.run_dir, name, index, c) for c in CONDITIONS}
        if not all(path.is_file() for path in paths.values()):
            return
        wrong: dict[Condition, tuple[str, ...]] = {c: _wrong(question, path) for c, path in paths.items()}
        yield Example(question, paths, wrong)


def _wrong(question: Question, path: Path) -> tuple[str, ...]:
    with Image.open(path) as picture:
        held = facts(question.scene, look(picture))
    return tuple(name for name, holds in held.items() if not holds)
