"""One self-contained HTML page about a run: pictures, scores, loss curves, what the cache holds, timings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sur.cache import Store
from sur.config.run_folder import RunFolder
from sur.evaluation.prompts.prompts import CONDITIONS, TITLES
from sur.evaluation.report.examples import read_examples
from sur.evaluation.report.grid import NAME as GRID
from sur.evaluation.report.grid import write_grid
from sur.evaluation.results import About, Asked, Comparison, Evaluation, Gap, Row
from sur.evaluation.statistics import Interval
from sur.evaluation.subject import Subject
from sur.support.pages import picture_uri_if_whole, render, svg_uri, write_page
from sur.support.timings import read_seconds
from sur.training.tracking.curves import read_curves
from sur.training.tracking.plots import plot_losses

if TYPE_CHECKING:
    from sur.config.run import RunConfig

NAME = "report.html"
T = TypeVar("T", Row, Gap, Comparison)


@dataclass(frozen=True)
class Scores:
    """A group of a set's prompts: its row under each condition, the adapter against the narrative, the gap closed."""

    group: str
    meaning: str
    rows: Sequence[Row]
    comparison: Comparison | None
    closed: Interval | None


@dataclass(frozen=True)
class Judged:
    """A set as one scorer sees it. scale: the score at which a bar is full."""

    scorer: About
    parts: Sequence[Scores]
    scale: float


def write_report(subject: Subject, evaluation: Evaluation, run: RunConfig | None = None) -> Path:
    """Write report.html and the picture before-after.png into the subject's folder; returns the page's path.

    With a run, the page also shows its losses and what its cache holds.
    """
    examples = {name: each for name, each in read_examples(subject, evaluation).items() if each}
    meanings = {each.name: each.meaning for each in evaluation.sets}
    if examples:
        write_grid(subject.folder / GRID, examples, meanings)
    context = {
        "sets": meanings,
        "scores": {each.name: list(_judged(evaluation, each)) for each in evaluation.sets},
        "titles": TITLES,
        "examples": examples,
        "picture": picture_uri_if_whole,
        "curves": svg_uri(plot_losses(records)) if (records := read_curves(RunFolder(subject.folder).curves)) else None,
        "cache": None if run is None else Store.open(run.store.path).describe(),
        "store": None if run is None else shown(run.store.path),
        "timings": read_seconds(subject.folder),
        "settings": subject.settings,
        "pipeline": shown(subject.base[0]),
        "folder": shown(subject.folder),
        "config": None if run is None else f"{shown(subject.folder)}/config.yaml",
        "adapter": shown(evaluation.adapter),
    }
    return write_page(subject.folder / NAME, render("report.html.j2", context))


def _judged(evaluation: Evaluation, asked: Asked) -> Iterator[Judged]:
    """What every scorer says of a set, in the scorers' order."""
    for scorer in evaluation.scorers:
        if parts := list(_parts(evaluation, asked, scorer.name)):
            highest = max(row.score.high for part in parts for row in part.rows)
            yield Judged(scorer, parts, scorer.top or max(highest, 1e-9))


def _parts(evaluation: Evaluation, asked: Asked, scorer: str) -> Iterator[Scores]:
    """All prompts of a set, then its groups; conditions and groups always in the same order."""

    def of(found: Iterable[T]) -> dict[str, list[T]]:
        mine = [each for each in found if (each.set, each.scorer) == (asked.name, scorer)]
        return {group: [each for each in mine if each.group == group] for group in {each.group for each in mine}}

    rows, gaps, comparisons = of(evaluation.rows), of(evaluation.gaps), of(evaluation.comparisons)
    for group, meaning in {"all": "every prompt of the set", **asked.groups}.items():
        if group in rows:
            ordered = sorted(rows[group], key=lambda row: CONDITIONS.index(row.condition))
            closed = [each.closed for each in gaps.get(group, ()) if math.isfinite(each.closed.value)]
            yield Scores(
                group, meaning, ordered, next(iter(comparisons.get(group, ())), None), next(iter(closed), None)
            )


def shown(place: Path | str) -> str:
    """A path below the working directory relative to it, anything else as it was given."""
    path = Path(place)
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd())) if inside else str(place)
