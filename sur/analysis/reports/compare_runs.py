"""Runs side by side: settings that differ, scores, and pictures of the same prompts."""

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
PROMPTS_PER_SET = 6  # prompts of each set whose pictures a page shows
_PLACES = ("run_dir", "data.path", "store.path")  # settings that say where things are, not what was done


@dataclass(frozen=True)
class ScoreLine:
    """One score for each run, None for a run without it. what: a condition's title, or CLOSED."""

    set: str
    group: str
    scorer: str
    what: str
    values: Sequence[Interval | None]


@dataclass(frozen=True)
class PictureLine:
    """Pictures of one prompt: without adapter and of the complex prompt (by the first run), with each run's adapter."""

    set: str
    narrative: str
    complex: str | None
    plain: Path | None
    keyword: Path | None
    with_adapter: Sequence[Path | None]

    @property
    def pictures(self) -> list[tuple[Path | None, str]]:
        """All pictures from left to right, each with its condition."""
        adapters = [(path, "with the adapter") for path in self.with_adapter]
        return [(self.plain, "without adapter"), *adapters, (self.keyword, "under the complex prompt")]


def different_settings(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Settings in which the runs differ, and each run's value."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    lines = []
    for name in names:
        values = [run.settings.get(name, "") for run in runs]
        if name not in _PLACES and any(value != values[0] for value in values):
            lines.append((name, [_as_text(value) for value in values]))
    return lines


def score_lines(runs: Sequence[RunRecord]) -> list[ScoreLine]:
    """Every score that some run has, in the order of the evaluations; all prompts of a set before its groups."""
    by_line: dict[tuple[str, str, str, str], dict[int, Interval]] = {}
    for number, run in enumerate(runs):
        if run.evaluation is None:
            continue
        for row in run.evaluation.rows:
            key = (row.set, row.group, row.scorer, TITLES[row.condition])
            by_line.setdefault(key, {})[number] = row.score
        for gap in run.evaluation.gaps:
            if math.isfinite(gap.closed.value):
                by_line.setdefault((gap.set, gap.group, gap.scorer, CLOSED), {})[number] = gap.closed
    order = _order(runs)
    whats = [*(TITLES[c] for c in CONDITIONS), CLOSED]
    keys = sorted(by_line, key=lambda k: (*(order.get(part, len(order)) for part in k[:3]), whats.index(k[3])))
    return [ScoreLine(*key, [by_line[key].get(number) for number in range(len(runs))]) for key in keys]


def picture_lines(runs: Sequence[RunRecord], prompts: int) -> list[PictureLine]:
    """Pictures of the first prompts of each set; prompts: how many."""
    by_prompt: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for number, run in enumerate(runs):
        for single in run.singles:
            by_prompt.setdefault((single.set, single.id), []).append((number, single))
    counts: dict[str, int] = {}
    lines = []
    for (name, _), drawn in by_prompt.items():
        if counts.setdefault(name, 0) >= prompts:
            continue
        counts[name] += 1
        by_run = dict(drawn)
        first, single = drawn[0]
        with_adapter = [run.picture(by_run[n], "adapter") if n in by_run else None for n, run in enumerate(runs)]
        plain, keyword = (runs[first].picture(single, condition) for condition in ("narrative", "complex"))
        if any((plain, keyword, *with_adapter)):
            lines.append(PictureLine(name, single.narrative, single.complex, plain, keyword, with_adapter))
    return lines


def _order(runs: Sequence[RunRecord]) -> dict[str, int]:
    """Place of each set, group and scorer in the order of the evaluations."""
    names = {"all": None}
    for run in runs:
        if run.evaluation is not None:
            names |= {prompts.name: None for prompts in run.evaluation.sets}
            names |= {group: None for prompts in run.evaluation.sets for group in prompts.groups}
            names |= {scorer.name: None for scorer in run.evaluation.scorers}
    return {name: place for place, name in enumerate(names)}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
