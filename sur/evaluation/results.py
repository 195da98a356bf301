"""The result of an evaluation: evaluation.json, and every single score in evaluation.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from sur.config.run_folder import RunFolder
from sur.evaluation.prompts.prompts import Condition
from sur.evaluation.statistics import Interval, Number
from sur.support.files import file_lines, write_text


class ScoreRow(BaseModel):
    """Mean score of one condition on one set, or on a group of its prompts, by one scorer.

    All conditions of a prompt are averaged over the same pictures: those scored under each condition that the prompt
    has a text for. unscored: number of the other pictures. For the oracle also: facts, the share of pictures in which
    each kind of fact holds; fit, mean IoU of the objects' outlines; frechet, distance to rendered pictures of the
    same scenes.
    """

    set: str
    group: str
    scorer: str
    condition: Condition
    prompts: int
    pictures: int
    unscored: int = 0
    score: Interval
    facts: dict[str, float] = {}
    fit: float | None = None
    frechet: float | None = None


class Gap(BaseModel):
    """Share of the gap between narrative and complex prompts that the adapter closes; 1 is all of it."""

    set: str
    group: str
    scorer: str
    closed: Interval


class Comparison(BaseModel):
    """The adapter against the narrative, prompt by prompt on the same noise.

    difference: adapter - narrative. wins, losses, ties: number of prompts whose pictures became better, worse,
    neither. p: of the two-sided sign-flip test.
    """

    set: str
    group: str
    scorer: str
    difference: Interval
    wins: int
    losses: int
    ties: int
    p: float


class ScorerInfo(BaseModel):
    """A scorer as readers see it. top: the best possible score, None for a scale without end."""

    name: str
    meaning: str
    higher_is_better: bool
    top: float | None


class PromptSetInfo(BaseModel):
    """A prompt set as readers see it. groups: name -> meaning, in their order."""

    name: str
    meaning: str
    groups: dict[str, str]


class Evaluation(BaseModel):
    """Everything that the report shows of an evaluation.

    digest: hash of everything that the evaluation depends on. adapter_fingerprint: hash of the adapter's weights.
    weight: the adapter's dial during the evaluation, None for its own.
    """

    digest: str
    adapter: str
    adapter_fingerprint: str
    weight: float | None
    pictures: str
    sets: list[PromptSetInfo]
    scorers: list[ScorerInfo]
    rows: list[ScoreRow]
    gaps: list[Gap]
    comparisons: list[Comparison]


class Single(BaseModel):
    """One prompt: its pictures (paths in the folder of pictures) and each scorer's values, one for each repeat."""

    set: str
    id: str
    groups: tuple[str, ...]
    narrative: str
    complex: str | None
    pictures: dict[Condition, list[str]]
    scores: dict[str, dict[Condition, list[Number]]]


def write_result(folder: Path, result: Evaluation, singles: Sequence[Single]) -> None:
    """Write both files into a run's folder, the summary last."""
    write_text(RunFolder(folder).scores, "".join(single.model_dump_json() + "\n" for single in singles))
    write_text(RunFolder(folder).evaluation, result.model_dump_json(indent=2) + "\n")


def read_singles(folder: Path) -> list[Single]:
    """Every prompt of the folder's evaluation; an empty list when the folder has none."""
    path = RunFolder(folder).scores
    if not path.is_file():
        return []
    return [Single.model_validate_json(line) for line in file_lines(path)]


def adapter_scores(evaluation: Evaluation) -> dict[str, float]:
    """Numbers of the adapter by name: each judge's score on every set, and the share of the gap closed."""
    scores = {
        f"{row.set} {row.scorer}": row.score.value
        for row in evaluation.rows
        if row.group == "all" and row.condition == "adapter"
    }
    closed = {f"{gap.set} {gap.scorer} closed": gap.closed.value for gap in evaluation.gaps if gap.group == "all"}
    return scores | closed
