"""What a sweep found, side by side: one table (markdown, CSV, JSON) and one picture over the swept values."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sur.training.sweep.runs import Outcome

NAME = "comparison"
SEED = "seed"


def write_comparison(folder: Path, outcomes: Sequence[Outcome]) -> Path:
    """Write comparison.md, .csv, .json and .png into `folder`; returns the markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{NAME}.md"
    content = [outcome.model_dump(mode="json") for outcome in outcomes]
    target.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
    header, *lines = table(outcomes)
    with target.with_suffix(".csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *lines])
    if any(outcome.measured for outcome in outcomes):
        plot(target.with_suffix(".png"), outcomes)
    parts = ["# Sweep", markdown(header, lines)]
    if any(SEED in outcome.values for outcome in outcomes):
        parts += ["## Over seeds: mean [lowest, highest]", markdown(*over_seeds(outcomes))]
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return target


def table(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """A header and a line a run: swept values, last step, numbers, folder, error."""
    keys, numbers = _keys(outcomes), _numbers(outcomes)
    lines = [
        [_shown(each.values[key]) for key in keys]
        + [str(each.step)]
        + [_number(each.measured.get(number)) for number in numbers]
        + [each.name, each.error or ""]
        for each in outcomes
    ]
    return [[*keys, "step", *numbers, "folder", "error"], *lines]


def over_seeds(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """A header and a line a setting: numbers over the seeds that did not fail, and how many these are."""
    keys, numbers = [key for key in _keys(outcomes) if key != SEED], _numbers(outcomes)
    lines = []
    for setting, runs in _grouped(outcomes, keys).items():
        done = [run for run in runs if run.error is None]
        cells = []
        for number in numbers:
            found = [run.measured[number] for run in done if number in run.measured]
            cells.append(f"{fmean(found):.4g} [{min(found):.4g}, {max(found):.4g}]" if found else "")
        lines.append([*setting, str(len(done)), *cells])
    return [*keys, "seeds", *numbers], lines


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def plot(path: Path, outcomes: Sequence[Outcome]) -> Path:
    """A panel a number over the first swept value: a dot a run, a line through the means for each other setting."""
    from matplotlib.figure import Figure

    keys, numbers = _keys(outcomes), _numbers(outcomes)
    first, others = keys[0], [key for key in keys[1:] if key != SEED]
    places = list(dict.fromkeys(_shown(outcome.values[first]) for outcome in outcomes))
    columns = min(3, len(numbers))
    rows = -(-len(numbers) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(numbers) :]:
        panel.set_visible(False)
    for panel, number in zip(panels, numbers, strict=False):
        for setting, runs in _grouped(outcomes, others).items():
            found = [(_shown(r.values[first]), r.measured[number]) for r in runs if number in r.measured]
            if not found:
                continue
            dots = panel.plot([places.index(x) for x, _ in found], [y for _, y in found], ".", alpha=0.6)
            means = {x: fmean(y for at, y in found if at == x) for x in places if any(at == x for at, _ in found)}
            label = ", ".join(f"{key}={value}" for key, value in zip(others, setting, strict=True))
            panel.plot([places.index(x) for x in means], list(means.values()), color=dots[0].get_color(), label=label)
        panel.set_title(number, fontsize=10)
        panel.set_xticks(range(len(places)), places)
        panel.set_xlabel(first)
        panel.spines[["top", "right"]].set_visible(False)
    if others:
        panels[0].legend(frameon=False, fontsize=8)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=120)
    return partial.replace(path)


def _keys(outcomes: Sequence[Outcome]) -> list[str]:
    return list(outcomes[0].values)


def _numbers(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(name for outcome in outcomes for name in outcome.measured))


def _grouped(outcomes: Sequence[Outcome], keys: Sequence[str]) -> dict[tuple[str, ...], list[Outcome]]:
    """The runs by their values of `keys`, in their order."""
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(tuple(_shown(outcome.values[key]) for key in keys), []).append(outcome)
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    """Text that cannot end a table's cell or line."""
    return " ".join(text.replace("|", "\\|").split())
