"""What an evaluation found: evaluation.json, and every single score in evaluation.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from sur.evaluation.prompts.prompts import Condition
from sur.evaluation.statistics import Interval, Number

RESULT, SINGLE = "evaluation.json", "evaluation.jsonl"


class Row(BaseModel):
    """Mean score of one condition on one set, or on a group of its prompts, by one scorer.

    The mean is over pictures that have a score under every condition that their prompt has a text for, so that
    conditions are compared on equal terms; a complex prompt's over those of them that have one. unscored: pictures
    left out. For the oracle also: facts, the share in which each kind of fact
    holds; fit, mean IoU of the objects' outlines; frechet, distance to rendered pictures of the same scenes.
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
    """Share of the gap between narrative and complex prompts that the adapter closes, 1 = all of it."""

    set: str
    group: str
    scorer: str
    closed: Interval


class Comparison(BaseModel):
    """The adapter against the narrative, prompt by prompt, the same noise.

    difference: adapter - narrative. wins, losses, ties: prompts whose pictures got better, worse, neither. p: of the
    sign-flip test, two-sided.
    """

    set: str
    group: str
    scorer: str
    difference: Interval
    wins: int
    losses: int
    ties: int
    p: float


class About(BaseModel):
    """A scorer, for readers. top: the best possible score, None when there is none."""

    name: str
    meaning: str
    higher_is_better: bool
    top: float | None


class Asked(BaseModel):
    """A prompt set, for readers. groups: name -> meaning, in their order."""

    name: str
    meaning: str
    groups: dict[str, str]


class Evaluation(BaseModel):
    """Everything that the report shows of an evaluation; `digest` stands for all that it depends on.

    adapter_fingerprint: of its weights. weight: the dial it was judged at, None = its own.
    """

    digest: str
    adapter: str
    adapter_fingerprint: str
    weight: float | None
    pictures: str
    sets: list[Asked]
    scorers: list[About]
    rows: list[Row]
    gaps: list[Gap]
    comparisons: list[Comparison]


class Single(BaseModel):
    """One prompt: its pictures (paths in the folder of pictures) and each scorer's values, a list entry a repeat."""

    set: str
    id: str
    groups: tuple[str, ...]
    narrative: str
    complex: str | None
    pictures: dict[Condition, list[str]]
    scores: dict[str, dict[Condition, list[Number]]]


def write_result(folder: Path, result: Evaluation, singles: Sequence[Single]) -> None:
    """Put both files into a folder, the summary last."""
    lines = "".join(each.model_dump_json() + "\n" for each in singles)
    for name, text in ((SINGLE, lines), (RESULT, result.model_dump_json(indent=2) + "\n")):
        partial = folder / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def read_singles(folder: Path) -> list[Single]:
    """Every prompt of the folder's evaluation; none when there is no such file."""
    path = folder / SINGLE
    if not path.is_file():
        return []
    return [Single.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def adapter_scores(evaluation: Evaluation) -> dict[str, float]:
    """What an evaluation says of the adapter: each judge's score, and the share of the gap closed, of every set."""
    found = {
        f"{row.set} {row.scorer}": row.score.value
        for row in evaluation.rows
        if row.group == "all" and row.condition == "adapter"
    }
    closed = {f"{gap.set} {gap.scorer} closed": gap.closed.value for gap in evaluation.gaps if gap.group == "all"}
    return found | closed
