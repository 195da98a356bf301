"""Comparison of a sweep's runs: one table (markdown, CSV, JSON) and one picture over the swept values."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sur.support.files import replacing, write_text
from sur.training.sweep.runs import Outcome

COMPARISON = "comparison.md"
SEED = "seed"


def write_comparison(folder: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write comparison.md, .csv, .json and .png into `folder`; returns the markdown's path."""
    target = folder / COMPARISON
    content = [outcome.model_dump(mode="json") for outcome in outcomes]
    write_text(target.with_suffix(".json"), json.dumps(content, indent=2) + "\n")
    header, *lines = table(outcomes)
    with replacing(target.with_suffix(".csv")) as partial, partial.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *lines])
    if any(outcome.measured for outcome in outcomes):
        plot_sweep(target.with_suffix(".png"), outcomes)
    parts = ["# Sweep", markdown(header, lines)]
    if any(SEED in outcome.values for outcome in outcomes):
        parts += ["## Over seeds: mean [lowest, highest]", markdown(*over_seeds(outcomes))]
    return write_text(target, "\n\n".join(parts) + "\n")


def table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A header and one line for each run: swept values, last step, numbers, folder, error."""
    keys, numbers = _keys(outcomes), _numbers(outcomes)
    lines = [
        [_text(outcome.values[key]) for key in keys]
        + [str(outcome.step)]
        + [_number(outcome.measured.get(number)) for number in numbers]
        + [outcome.name, outcome.error or ""]
        for outcome in outcomes
    ]
    return [[*keys, "step", *numbers, "folder", "error"], *lines]


def over_seeds(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """A header and one line for each setting: the number of seeds that did not fail, and the numbers over them."""
    keys, numbers = [key for key in _keys(outcomes) if key != SEED], _numbers(outcomes)
    lines = []
    for setting, runs in _grouped(outcomes, keys).items():
        done = [run for run in runs if run.error is None]
        cells = []
        for number in numbers:
            values = [run.measured[number] for run in done if number in run.measured]
            cells.append(f"{fmean(values):.4g} [{min(values):.4g}, {max(values):.4g}]" if values else "")
        lines.append([*setting, str(len(done)), *cells])
    return [*keys, "seeds", *numbers], lines


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def plot_sweep(path: Path, outcomes: Sequence[Outcome]) -> Path:
    """Draw a PNG with one panel for each number over the first swept value; returns its path.

    A panel has a dot for each run, and a line through the means for each combination of the other swept values.
    """
    from matplotlib.figure import Figure

    keys, numbers = _keys(outcomes), _numbers(outcomes)
    first, others = keys[0], [key for key in keys[1:] if key != SEED]
    ticks = list(dict.fromkeys(_text(outcome.values[first]) for outcome in outcomes))
    columns = min(3, len(numbers))
    rows = -(-len(numbers) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(numbers) :]:
        panel.set_visible(False)
    for panel, number in zip(panels, numbers, strict=False):
        for setting, runs in _grouped(outcomes, others).items():
            points = [(_text(r.values[first]), r.measured[number]) for r in runs if number in r.measured]
            label = ", ".join(f"{key}={value}" for key, value in zip(others, setting, strict=True))
            if points:
                _draw_setting(panel, ticks, points, label)
        panel.set_title(number, fontsize=10)
        panel.set_xticks(range(len(ticks)), ticks)
        panel.set_xlabel(first)
        panel.spines[["top", "right"]].set_visible(False)
    if others:
        panels[0].legend(frameon=False, fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    return path


def _draw_setting(panel: Any, ticks: Sequence[str], points: Sequence[tuple[str, float]], label: str) -> None:
    """Dots of runs (swept value, number), and a line through the means of those with the same value."""
    dots = panel.plot([ticks.index(x) for x, _ in points], [y for _, y in points], ".", alpha=0.6)
    values = {tick: [y for x, y in points if x == tick] for tick in ticks}
    means = {tick: fmean(ys) for tick, ys in values.items() if ys}
    panel.plot([ticks.index(x) for x in means], list(means.values()), color=dots[0].get_color(), label=label)


def _keys(outcomes: Sequence[Outcome]) -> list[str]:
    return list(outcomes[0].values)


def _numbers(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(name for outcome in outcomes for name in outcome.measured))


def _grouped(outcomes: Sequence[Outcome], keys: Sequence[str]) -> dict[tuple[str, ...], list[Outcome]]:
    """The runs by their values of `keys`, in their order."""
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(tuple(_text(outcome.values[key]) for key in keys), []).append(outcome)
    return groups


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    """Text that cannot end a table's cell or line."""
    return " ".join(text.replace("|", "\\|").split())
