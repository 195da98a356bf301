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
from sur.evaluation.report.grid import write_grid
from sur.evaluation.results import Comparison, Evaluation, Gap, PromptSetInfo, ScorerInfo, ScoreRow
from sur.evaluation.statistics import Interval
from sur.evaluation.subject import Subject
from sur.support.pages import picture_uri_if_whole, render_template, svg_uri, write_page
from sur.support.timings import read_seconds
from sur.training.tracking.curves import read_curves
from sur.training.tracking.plots import plot_losses

if TYPE_CHECKING:
    from sur.config.run import RunConfig

Scored = TypeVar("Scored", ScoreRow, Gap, Comparison)


@dataclass(frozen=True)
class GroupScores:
    """Scores of a group of a set's prompts: a row for each condition, adapter against narrative, the gap closed."""

    group: str
    meaning: str
    rows: Sequence[ScoreRow]
    comparison: Comparison | None
    closed: Interval | None


@dataclass(frozen=True)
class SetScores:
    """Scores of a set by one scorer. scale: the score at which a bar is full."""

    scorer: ScorerInfo
    parts: Sequence[GroupScores]
    scale: float


def write_report(subject: Subject, evaluation: Evaluation, run: RunConfig | None = None) -> Path:
    """Write report.html and the picture before-after.png into the subject's folder; returns the page's path.

    With a run, the page also shows its losses and what its cache holds.
    """
    folder = RunFolder(subject.folder)
    examples = {name: of_set for name, of_set in read_examples(subject, evaluation).items() if of_set}
    meanings = {info.name: info.meaning for info in evaluation.sets}
    if examples:
        write_grid(folder.grid, examples, meanings)
    context = {
        "sets": meanings,
        "scores": {info.name: list(_set_scores(evaluation, info)) for info in evaluation.sets},
        "titles": TITLES,
        "examples": examples,
        "picture": picture_uri_if_whole,
        "curves": svg_uri(plot_losses(records)) if (records := read_curves(folder.curves)) else None,
        "cache": None if run is None else Store.open(run.store.path).describe(),
        "store": None if run is None else display_path(run.store.path),
        "timings": read_seconds(subject.folder),
        "settings": subject.settings,
        "pipeline": display_path(subject.base[0]),
        "folder": display_path(subject.folder),
        "config": None if run is None else f"{display_path(subject.folder)}/config.yaml",
        "adapter": display_path(evaluation.adapter),
    }
    return write_page(folder.report, render_template("report.html.j2", context))


def _set_scores(evaluation: Evaluation, info: PromptSetInfo) -> Iterator[SetScores]:
    """Scores of a set by every scorer, in the scorers' order."""
    for scorer in evaluation.scorers:
        if parts := list(_group_scores(evaluation, info, scorer.name)):
            highest = max(row.score.high for part in parts for row in part.rows)
            yield SetScores(scorer, parts, scorer.top or max(highest, 1e-9))


def _group_scores(evaluation: Evaluation, info: PromptSetInfo, scorer: str) -> Iterator[GroupScores]:
    """All prompts of a set, then its groups; conditions and groups always in the same order."""

    def by_group(entries: Iterable[Scored]) -> dict[str, list[Scored]]:
        own = [entry for entry in entries if (entry.set, entry.scorer) == (info.name, scorer)]
        return {group: [entry for entry in own if entry.group == group] for group in {entry.group for entry in own}}

    rows, gaps, comparisons = by_group(evaluation.rows), by_group(evaluation.gaps), by_group(evaluation.comparisons)
    for group, meaning in {"all": "every prompt of the set", **info.groups}.items():
        if group in rows:
            ordered = sorted(rows[group], key=lambda row: CONDITIONS.index(row.condition))
            closed = [gap.closed for gap in gaps.get(group, ()) if math.isfinite(gap.closed.value)]
            yield GroupScores(
                group, meaning, ordered, next(iter(comparisons.get(group, ())), None), next(iter(closed), None)
            )


def display_path(place: Path | str) -> str:
    """A path below the working directory as a relative one, any other path or address as it is."""
    path = Path(place)
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd())) if inside else str(place)
