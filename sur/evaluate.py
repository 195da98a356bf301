"""Evaluation: does the picture show what the prompt asked for, and how much of the gap does the adapter close?

On the shapes world the oracle reads the pictures. The gap of a set is the score under complex prompts minus the
score under narrative ones; `closed` is the share of it that the adapter wins back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from sur.adapter import Adapter
from sur.errors import ConfigError
from sur.generate import generate, load_pipeline
from sur.shapes.oracle import facts, look
from sur.shapes.quality import frechet_distance, latent_vectors, rendered
from sur.shapes.questions import GROUPS, Question, SetName, questions

if TYPE_CHECKING:
    from sur.config import RunConfig

Condition = Literal["narrative", "adapter", "complex"]
CONDITIONS: tuple[Condition, ...] = ("narrative", "adapter", "complex")
RESULT = "evaluation.json"
_log = logging.getLogger(__name__)


class EvaluateConfig(BaseModel):
    """What is generated and scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: tuple[SetName, ...] = Field(default=(), description="question sets of the shapes world; none: no evaluation")
    prompts: int = Field(default=256, ge=2, description="questions of each set")
    seed: int = Field(default=0, description="of questions, noise and bootstrap")
    steps: int = Field(default=25, ge=1, description="sampling steps")
    guidance: float = Field(default=3.0, ge=1, description="classifier-free guidance")
    batch_size: int = Field(default=64, ge=1, description="pictures made at once")
    resamples: int = Field(default=2000, ge=100, description="bootstrap resamples of the questions")
    examples: int = Field(default=12, ge=0, description="questions of each set whose pictures are kept")


class Interval(BaseModel):
    """An estimate with the 2.5 % and 97.5 % points of its bootstrap over questions."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Row(BaseModel):
    """Scores of one condition on one set, or on a group of its questions.

    score: share of pictures that show exactly what was asked for. facts: share in which each kind of fact holds.
    fit: mean IoU of the objects' outlines. frechet: distance to rendered pictures of the same scenes, on latents.
    """

    set: str
    group: str
    condition: Condition
    pictures: int
    score: Interval
    facts: dict[str, float]
    fit: float
    frechet: float | None = None


class Gap(BaseModel):
    """Share of the gap between narrative and complex prompts that the adapter closes, 1 = all of it."""

    set: str
    group: str
    closed: Interval


class Evaluation(BaseModel):
    """Everything that the report shows of an evaluation."""

    adapter: str
    rows: list[Row]
    gaps: list[Gap]


def evaluate(config: RunConfig, adapter: str | Path, on_pictures: Callable[[int], None] | None = None) -> Evaluation:
    """Generate and score every set under the three conditions; writes evaluation.json and example pictures.

    Raises FileNotFoundError when there is no adapter at `adapter`, ConfigError when no set is asked for.
    """
    settings = config.evaluate
    if not settings.sets:
        raise ConfigError(
            "nothing to evaluate: evaluate.sets is empty. Its questions are about the shapes world; judge another "
            "model's adapter by eye with `sur generate`"
        )
    loaded = Adapter.from_pretrained(adapter)
    pipe = load_pipeline(*config.base)
    result = Evaluation(adapter=str(adapter), rows=[], gaps=[])
    for name in settings.sets:
        asked = questions(name, settings.prompts, settings.seed)
        pictures: dict[Condition, list[Image.Image]] = {c: draw(pipe, asked, c, loaded, settings) for c in CONDITIONS}
        for condition in CONDITIONS:
            _keep_examples(config.run_dir / "examples" / name, condition, pictures[condition][: settings.examples])
        rows, gaps = score(name, asked, pictures, settings, pipe.vae)
        result.rows.extend(rows)
        result.gaps.extend(gaps)
        if on_pictures is not None:
            on_pictures(len(asked) * len(CONDITIONS))
    (config.run_dir / RESULT).write_text(result.model_dump_json(indent=2) + "\n")
    return result


def draw(
    pipe: Any,
    asked: Sequence[Question],
    condition: Condition,
    adapter: Adapter | None,
    settings: EvaluateConfig,
) -> list[Image.Image]:
    """Pictures of the questions under one condition; the same noise for a question under all of them."""
    prompts = [q.complex if condition == "complex" else q.narrative for q in asked]
    seeds = [settings.seed * 1_000_000 + i for i in range(len(asked))]
    return generate(
        pipe, prompts, seeds, adapter if condition == "adapter" else None,
        steps=settings.steps, guidance=settings.guidance, batch_size=settings.batch_size,
    )  # fmt: skip


def score(
    name: str,
    asked: Sequence[Question],
    pictures: dict[Condition, list[Image.Image]],
    settings: EvaluateConfig,
    vae: Any = None,
) -> tuple[list[Row], list[Gap]]:
    """Rows and gaps of one set, for all questions and for each group of them."""
    seen = {c: [look(picture) for picture in made] for c, made in pictures.items()}
    held = {c: [facts(q.scene, s) for q, s in zip(asked, seen[c], strict=True)] for c in pictures}
    groups = ["all", *(group for group in GROUPS if any(group in q.groups for q in asked))]
    real = None if vae is None else latent_vectors(vae, rendered([q.scene for q in asked], settings.seed))
    rows, gaps = [], []
    for group in groups:
        chosen = [i for i, q in enumerate(asked) if group == "all" or group in q.groups]
        draws = np.random.default_rng(settings.seed).integers(len(chosen), size=(settings.resamples, len(chosen)))
        right: dict[Condition, np.ndarray] = {
            c: np.array([all(held[c][i].values()) for i in chosen], dtype=float) for c in pictures
        }
        for condition in pictures:
            fits = [s.fit for i in chosen for s in seen[condition][i]]
            rows.append(
                Row(
                    set=name, group=group, condition=condition, pictures=len(chosen),
                    score=_interval(right[condition].mean(), right[condition][draws].mean(1)),
                    facts=_share([held[condition][i] for i in chosen]),
                    fit=float(np.mean(fits)) if fits else 0.0,
                    frechet=_frechet(vae, pictures[condition], real) if group == "all" and real is not None else None,
                )
            )  # fmt: skip
        if set(CONDITIONS) <= set(right):
            gaps.append(Gap(set=name, group=group, closed=closed_gap(right, draws)))
    return rows, gaps


def closed_gap(right: dict[Condition, Float[np.ndarray, " n"]], draws: np.ndarray) -> Interval:
    """(adapter - narrative) / (complex - narrative), with its interval over resampled questions."""

    def closed(scores: dict[Condition, Any]) -> Any:
        gap = scores["complex"] - scores["narrative"]
        return np.where(gap > 0, (scores["adapter"] - scores["narrative"]) / np.where(gap > 0, gap, 1), np.nan)

    value = closed({c: r.mean() for c, r in right.items()})
    return _interval(float(value), closed({c: r[draws].mean(1) for c, r in right.items()}))


def _interval(value: float, samples: Float[np.ndarray, " resamples"]) -> Interval:
    low, high = np.nanquantile(samples, [0.025, 0.975]) if np.isfinite(samples).any() else (np.nan, np.nan)
    return Interval(value=float(value), low=float(low), high=float(high))


def _share(held: list[dict[str, bool]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in held for name in each)
    return {name: float(np.mean([each[name] for each in held if name in each])) for name in names}


def _frechet(vae: Any, pictures: list[Image.Image], real: Float[np.ndarray, "n d"]) -> float:
    return frechet_distance(latent_vectors(vae, pictures), real)


def _keep_examples(folder: Path, condition: str, pictures: list[Image.Image]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index:03d}-{condition}.png")
