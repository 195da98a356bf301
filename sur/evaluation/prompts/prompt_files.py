"""Prompt sets from files: a JSON object a line (.jsonl), or a YAML list (.yaml, .yml)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sur.evaluation.prompts.prompts import PictureQuestion, Prompt
from sur.support.errors import ConfigError
from sur.support.files import file_lines


def _answers(value: Any) -> Any:
    """One answer or several, as text: YAML reads 3 as a number, and yes and no as booleans."""
    several = value if isinstance(value, list) else [value]
    return ["yes" if answer is True else "no" if answer is False else str(answer) for answer in several]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1)
    answers: Annotated[tuple[str, ...], BeforeValidator(_answers), Field(min_length=1)]


class _Line(BaseModel):
    """One prompt of a file."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, BeforeValidator(str)] = Field(min_length=1)
    category: str | None = None
    narrative: str = Field(min_length=1)
    complex: str | None = Field(default=None, min_length=1)
    questions: tuple[_Question, ...] = ()


def read_prompts(path: Path) -> list[Prompt]:
    """Every prompt of a file.

    Raises: ConfigError, with the place in the file, when it cannot be read, a line is not as it should be, or two
    prompts have one id.
    """
    prompts: dict[str, Prompt] = {}
    for place, content in _entries(path):
        try:
            line = _Line.model_validate(content)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "the prompt"
            raise ConfigError(f"{path}, {place}: {where}: {fault['msg']}; docs/evaluation.md has the format") from None
        if line.id in prompts:
            raise ConfigError(f"{path}, {place}: the id {line.id!r} is taken by an earlier prompt; give it its own")
        questions = tuple(PictureQuestion(entry.question, entry.answers) for entry in line.questions)
        groups = (line.category,) if line.category else ()
        prompts[line.id] = Prompt(line.id, line.narrative, line.complex, groups, questions)
    if len(prompts) < 2:
        raise ConfigError(f"{path} has {len(prompts)} prompts; an evaluation needs at least 2")
    return list(prompts.values())


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Each prompt's place in the file and its content, not checked yet."""
    if path.suffix not in (".jsonl", ".yaml", ".yml"):
        raise ConfigError(f"{path}: prompts are read from .jsonl, .yaml and .yml files; rename or convert it")
    try:
        lines = file_lines(path)
    except FileNotFoundError:
        raise ConfigError(f"there is no prompt file {path}; correct evaluate.files") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if path.suffix == ".jsonl":
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except ValueError as error:
                    raise ConfigError(f"{path}, line {number} is not JSON: {error}") from None
        return
    try:
        content = yaml.safe_load("\n".join(lines))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not usable YAML: {error}") from None
    if not isinstance(content, list):
        raise ConfigError(f"{path} must hold a list of prompts, but holds {type(content).__name__}")
    yield from ((f"prompt {number}", entry) for number, entry in enumerate(content, start=1))
