"""Evaluation: does the picture show what the prompt asked for, and how much of the gap does the adapter close?

On the shapes world the oracle reads the pictures. The gap of a set is the score under complex prompts minus the
score under narrative ones; `closed` is the share of it that the adapter wins back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sur.adapter import Adapter
from sur.encoders.locate import PIPELINE_WEIGHTS, locate
from sur.errors import ConfigError
from sur.fingerprint import pipeline_fingerprint, weights_fingerprint
from sur.generate import generate, load_pipeline
from sur.shapes.oracle import facts, look
from sur.shapes.quality import frechet_distance, latent_vectors, rendered
from sur.shapes.questions import GROUPS, Question, SetName, questions
from sur.standing import note_seconds

if TYPE_CHECKING:
    from sur.config import RunConfig

Condition = Literal["narrative", "adapter", "complex"]
CONDITIONS: tuple[Condition, ...] = ("narrative", "adapter", "complex")
RESULT = "evaluation.json"
EVALUATION_VERSION = 1  # to be raised when questions, pictures, oracle or scores change
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


Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # JSON has no NaN


class Interval(BaseModel):
    """An estimate with the 2.5 % and 97.5 % points of its bootstrap over questions."""

    value: Number
    low: Number
    high: Number

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
    """Everything that the report shows of an evaluation; `digest` stands for all that it depends on."""

    digest: str
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
    began = time.monotonic()
    loaded = Adapter.from_pretrained(adapter)
    pipe = load_pipeline(*config.base)
    result = Evaluation(digest=_digest(config, adapter), adapter=str(adapter), rows=[], gaps=[])
    for name in settings.sets:
        asked = questions(name, settings.prompts, settings.seed)
        pictures: dict[Condition, list[Image.Image]] = {
            c: draw(pipe, asked, c, loaded, settings, on_pictures) for c in CONDITIONS
        }
        for condition in CONDITIONS:
            for index, picture in enumerate(pictures[condition][: settings.examples]):
                file = example_file(config.run_dir, name, index, condition)
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file)
        rows, gaps = score(name, asked, pictures, settings, pipe.vae)
        result.rows.extend(rows)
        result.gaps.extend(gaps)
    note_seconds(config.run_dir, "evaluate", time.monotonic() - began)
    partial = config.run_dir / f".{RESULT}.partial"
    partial.write_text(result.model_dump_json(indent=2) + "\n")
    partial.replace(config.run_dir / RESULT)
    return result


def kept_evaluation(config: RunConfig, adapter: str | Path) -> Evaluation | None:
    """The run folder's evaluation if it is of these weights, questions and settings, and has its pictures."""
    path, settings = config.run_dir / RESULT, config.evaluate
    if not path.is_file() or not settings.sets or not Path(adapter).is_dir():
        return None
    try:
        kept = Evaluation.model_validate_json(path.read_text())
    except ValidationError:  # of another version
        return None
    shown = range(min(settings.examples, settings.prompts))
    files = (
        example_file(config.run_dir, name, index, c) for name in settings.sets for index in shown for c in CONDITIONS
    )
    if kept.digest != _digest(config, adapter) or not all(file.is_file() for file in files):
        return None
    _log.info("nothing has changed since the evaluation in %s; remove it to evaluate again", path)
    return kept.model_copy(update={"adapter": str(adapter)})


def _digest(config: RunConfig, adapter: str | Path) -> str:
    """Of all that an evaluation depends on; FileNotFoundError when there is no adapter or no base model."""
    content = {
        "version": EVALUATION_VERSION,
        "adapter": weights_fingerprint(Path(adapter)),
        "base_model": pipeline_fingerprint(locate(*config.base, needed=PIPELINE_WEIGHTS).folder),
        "settings": config.evaluate.model_dump(mode="json"),
        "libraries": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def pictures_of(settings: EvaluateConfig) -> int:
    """How many pictures an evaluation draws."""
    return len(settings.sets) * settings.prompts * len(CONDITIONS)


def draw(
    pipe: Any,
    asked: Sequence[Question],
    condition: Condition,
    adapter: Adapter | None,
    settings: EvaluateConfig,
    on_pictures: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """Pictures of the questions under one condition; the same noise for a question under all of them."""
    prompts = [q.complex if condition == "complex" else q.narrative for q in asked]
    seeds = [settings.seed * 1_000_000 + i for i in range(len(asked))]
    return generate(
        pipe, prompts, seeds, adapter if condition == "adapter" else None,
        steps=settings.steps, guidance=settings.guidance, batch_size=settings.batch_size, on_pictures=on_pictures,
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


def example_file(run_dir: Path, name: SetName, index: int, condition: Condition) -> Path:
    """Where the picture of a set's question is kept."""
    return run_dir / "examples" / name / f"{index:03d}-{condition}.png"
