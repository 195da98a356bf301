"""One self-contained HTML page about a run: pictures, scores, loss curves, what the cache holds, timings."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cache import Store
from sur.evaluate import CONDITIONS, Condition, Evaluation, Interval, Row
from sur.examples import read_examples
from sur.fit import CURVES
from sur.grid import NAME as GRID
from sur.grid import write_grid
from sur.shapes.questions import GROUPS, SETS
from sur.standing import read_seconds

if TYPE_CHECKING:
    from sur.config import RunConfig

NAME = "report.html"
_TITLES: dict[Condition, str] = {
    "narrative": "narrative", "adapter": "narrative + adapter", "complex": "complex prompt",
}  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """A group of a set's questions: its row under each condition, and the share of the gap that the adapter closes."""

    group: str
    meaning: str
    rows: Sequence[Row]
    closed: Interval | None


def write_report(config: RunConfig, evaluation: Evaluation) -> Path:
    """Write <run_dir>/report.html and the picture before-after.png beside it; returns the page's path."""
    examples = read_examples(config)
    if any(examples.values()):
        write_grid(config.run_dir / GRID, examples)
    page = (
        Environment(loader=PackageLoader("sur"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        .get_template("report.html.j2")
        .render(
            sets={name: SETS[name] for name in config.evaluate.sets},
            scores={name: list(_scores(evaluation, name)) for name in config.evaluate.sets},
            titles=_TITLES,
            examples={name: each for name, each in examples.items() if each},
            picture=lambda path: _data_uri("image/png", path.read_bytes()),
            curves=_curves(config.run_dir / CURVES),
            cache=Store.open(config.store.path).describe(),
            timings=read_seconds(config.run_dir),
            run_dir=_shown(config.run_dir),
            store=_shown(config.store.path),
            adapter=_shown(evaluation.adapter),
        )
    )
    target = config.run_dir / NAME
    partial = target.with_name(f".{NAME}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


def _scores(evaluation: Evaluation, name: str) -> Iterator[Scores]:
    """All questions of a set, then its groups; conditions and groups always in the same order."""
    closed = {gap.group: gap.closed for gap in evaluation.gaps if gap.set == name}
    for group, meaning in {"all": "every question of the set", **GROUPS}.items():
        rows = {row.condition: row for row in evaluation.rows if (row.set, row.group) == (name, group)}
        if rows:
            gap = closed.get(group)
            known = gap is not None and math.isfinite(gap.value)
            yield Scores(group, meaning, [rows[c] for c in CONDITIONS if c in rows], gap if known else None)


def _shown(place: Path | str) -> str:
    """A path below the working directory relative to it, anything else as it was given."""
    path = Path(place)
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd())) if inside else str(place)


def _curves(path: Path) -> str | None:
    """Losses over steps, as an SVG image; None when nothing was recorded."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if not records:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    for kind, style in (("train", {"alpha": 0.55, "linewidth": 1}), ("validation", {"linewidth": 1.8, "marker": "."})):
        names = dict.fromkeys(name for record in records for name in record.get(kind, {}))
        for name in names:
            points = [(r["step"], r[kind][name]) for r in records if name in r.get(kind, {})]
            axes.plot(*zip(*points, strict=True), label=f"{name}, {kind}", **style)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


def _svg(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
