"""Prompts of an evaluation: the texts to draw, and what the judges need of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sur.shapes.scenes import Scene

Condition = Literal["narrative", "adapter", "complex"]
CONDITIONS: tuple[Condition, ...] = ("narrative", "adapter", "complex")
TITLES: Mapping[Condition, str] = {  # as readers of results see them
    "narrative": "narrative", "adapter": "narrative + adapter", "complex": "complex prompt",
}  # fmt: skip
Need = Literal["picture", "narrative", "questions", "scene"]


@dataclass(frozen=True)
class PictureQuestion:
    """A question about the picture, and the answers that count as right."""

    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """A picture to draw, as a person tells it and, where there is one, as a complex keyword prompt.

    groups: its categories. questions: for a VQA model. scene: for the oracle of the shapes world.
    """

    id: str
    narrative: str
    complex: str | None = None
    groups: tuple[str, ...] = ()
    questions: tuple[PictureQuestion, ...] = ()
    scene: Scene | None = None

    def text(self, condition: Condition) -> str | None:
        """The text for the pipeline under a condition; None where the prompt has no complex form."""
        return self.complex if condition == "complex" else self.narrative

    def has(self, need: Need) -> bool:
        """Whether a scorer with such a need can judge the prompt's pictures."""
        return bool(self.questions) if need == "questions" else self.scene is not None or need != "scene"


@dataclass(frozen=True)
class PromptSet:
    """Prompts under one name. groups: name -> meaning, in the order of reports."""

    name: str
    meaning: str
    prompts: tuple[Prompt, ...]
    groups: Mapping[str, str] = field(default_factory=dict)
