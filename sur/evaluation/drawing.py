"""Drawing the pictures of an evaluation that its folder of pictures lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from sur.adapter.base import BaseAdapter
from sur.adapter.generate import generate, load_pipeline
from sur.evaluation.pictures import Recipe
from sur.evaluation.prompts.prompts import CONDITIONS, Condition, Prompt, PromptSet
from sur.evaluation.subject import Subject

# condition -> prompt's index -> a file for each repeat
Drawn: TypeAlias = Mapping[Condition, Mapping[int, Sequence[Path]]]


class Cell(NamedTuple):
    """One picture to be drawn: a prompt's place in its set, and which of its repeats it is."""

    place: int
    prompt: Prompt
    repeat: int


def conditions_of(prompts: Sequence[Prompt]) -> list[Condition]:
    """The conditions that at least one prompt has a text for."""
    return [c for c in CONDITIONS if any(prompt.text(c) is not None for prompt in prompts)]


def cells(subject: Subject, prompts: Sequence[Prompt], condition: Condition) -> Iterator[list[Cell]]:
    """Every picture under a condition, in batches of one repeat each, so that more repeats change no earlier batch."""
    size = 1 if condition == "adapter" and subject.rows_meet else subject.settings.batch_size
    for repeat in range(subject.settings.seeds_per_prompt):
        drawn = [Cell(i, p, repeat) for i, p in enumerate(prompts) if p.text(condition) is not None]
        yield from (drawn[start : start + size] for start in range(0, len(drawn), size))


def pictures_of(subject: Subject, sets: Sequence[PromptSet]) -> int:
    """Number of pictures of an evaluation."""
    return sum(len(b) for s in sets for c in conditions_of(s.prompts) for b in cells(subject, s.prompts, c))


class Drawer:
    """Draws missing pictures; the pipeline is loaded for the first of them."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._adapter: BaseAdapter | None = None
        self._pipe: Any = None

    @property
    def pipe(self) -> Any:
        """The pipeline, without the adapter."""
        if self._pipe is None:
            dtype = getattr(torch, self.subject.settings.dtype)
            self._pipe = load_pipeline(*self.subject.base, dtype=dtype)
        return self._pipe

    @property
    def adapter(self) -> BaseAdapter:
        """The adapter. Raises FileNotFoundError when there is none."""
        if self._adapter is None:
            self._adapter = BaseAdapter.from_pretrained(self.subject.adapter)
        return self._adapter

    def draw(self, prompts: Sequence[Prompt], on_pictures: Callable[[int], None] | None = None) -> Drawn:
        """Files of all pictures of a set's prompts; missing pictures are drawn.

        A batch that lacks a picture is drawn whole, because a picture's last bits depend on its neighbours in the
        batch: so an evaluation that was killed ends with the same pictures as one that was not. on_pictures: is called
        with the size of each batch, drawn or not.
        """
        subject = self.subject
        drawn: dict[Condition, dict[int, list[Path]]] = {c: {} for c in conditions_of(prompts)}
        for condition, files in drawn.items():
            for batch in cells(subject, prompts, condition):
                recipes = [subject.recipe(cell.prompt, condition, cell.place, cell.repeat) for cell in batch]
                paths = [subject.pictures.path(recipe) for recipe in recipes]
                if not all(path.is_file() for path in paths):
                    self._draw(recipes, condition)
                for cell, path in zip(batch, paths, strict=True):
                    files.setdefault(cell.place, []).append(path)
                if on_pictures is not None:
                    on_pictures(len(batch))
        return drawn

    def _draw(self, recipes: Sequence[Recipe], condition: Condition) -> None:
        settings = self.subject.settings
        pictures = generate(
            self.pipe, [r.prompt for r in recipes], [r.seed for r in recipes],
            self.adapter if condition == "adapter" else None, weight=settings.weight,
            steps=settings.steps, guidance=settings.guidance, size=settings.size, batch_size=len(recipes),
            t5_tokens=recipes[0].t5_tokens,
        )  # fmt: skip
        for recipe, picture in zip(recipes, pictures, strict=True):
            self.subject.pictures.write(recipe, picture)
