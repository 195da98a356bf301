"""Runs beside each other: which settings differ, what was scored, and what they drew of the same prompts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sur.analysis.reports.runs import RunRecord
from sur.evaluation.prompts.prompts import CONDITIONS, TITLES
from sur.evaluation.statistics import Interval

CLOSED = "gap closed"
_NOT_SETTINGS = ("run_dir", "data.path", "store.path")  # where things are, not what was done


@dataclass(frozen=True)
class ScoreLine:
    """One number of an evaluation for each run, None where a run has none. what: a condition's title, or CLOSED."""

    set: str
    group: str
    scorer: str
    what: str
    values: Sequence[Interval | None]


@dataclass(frozen=True)
class PictureLine:
    """What the runs drew of one prompt: without adapter and under the complex prompt (the first run's), with each."""

    set: str
    narrative: str
    complex: str | None
    plain: Path | None
    keyword: Path | None
    worn: Sequence[Path | None]

    @property
    def pictures(self) -> list[tuple[Path | None, str]]:
        """All of them from left to right, and what each was drawn under."""
        worn = [(path, "with the adapter") for path in self.worn]
        return [(self.plain, "without adapter"), *worn, (self.keyword, "under the complex prompt")]


def different_settings(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Settings in which runs differ, and each run's value; for a single run, none."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    lines = []
    for name in names:
        values = [run.settings.get(name, "") for run in runs]
        if name not in _NOT_SETTINGS and any(value != values[0] for value in values):
            lines.append((name, [_shown(value) for value in values]))
    return lines


def score_lines(runs: Sequence[RunRecord]) -> list[ScoreLine]:
    """Every score that some run has, in the order of the evaluations; all prompts of a set before its groups."""
    found: dict[tuple[str, str, str, str], dict[int, Interval]] = {}
    for number, run in enumerate(runs):
        if run.evaluation is None:
            continue
        for row in run.evaluation.rows:
            key = (row.set, row.group, row.scorer, TITLES[row.condition])
            found.setdefault(key, {})[number] = row.score
        for gap in run.evaluation.gaps:
            if math.isfinite(gap.closed.value):
                found.setdefault((gap.set, gap.group, gap.scorer, CLOSED), {})[number] = gap.closed
    order = _order(runs)
    whats = [*(TITLES[c] for c in CONDITIONS), CLOSED]
    keys = sorted(found, key=lambda k: (*(order.get(part, len(order)) for part in k[:3]), whats.index(k[3])))
    return [ScoreLine(*key, [found[key].get(number) for number in range(len(runs))]) for key in keys]


def picture_lines(runs: Sequence[RunRecord], prompts: int) -> list[PictureLine]:
    """The first prompts of each set, as many as asked for, not chosen."""
    seen: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for number, run in enumerate(runs):
        for single in run.singles:
            seen.setdefault((single.set, single.id), []).append((number, single))
    taken: dict[str, int] = {}
    lines = []
    for (name, _), drawn in seen.items():
        if taken.setdefault(name, 0) >= prompts:
            continue
        taken[name] += 1
        by_run = dict(drawn)
        first, single = drawn[0]
        worn = [run.picture(by_run[n], "adapter") if n in by_run else None for n, run in enumerate(runs)]
        plain, keyword = (runs[first].picture(single, condition) for condition in ("narrative", "complex"))
        if any((plain, keyword, *worn)):
            lines.append(PictureLine(name, single.narrative, single.complex, plain, keyword, worn))
    return lines


def _order(runs: Sequence[RunRecord]) -> dict[str, int]:
    """Places of sets, groups and scorers as the evaluations list them."""
    names = {"all": None}
    for run in runs:
        if run.evaluation is not None:
            names |= {asked.name: None for asked in run.evaluation.sets}
            names |= {group: None for asked in run.evaluation.sets for group in asked.groups}
            names |= {scorer.name: None for scorer in run.evaluation.scorers}
    return {name: place for place, name in enumerate(names)}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
