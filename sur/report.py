"""One self-contained HTML page about a run: pictures, scores, loss curves, what the cache holds, timings."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cache import Store
from sur.evaluate import CONDITIONS, Evaluation
from sur.fit import CURVES
from sur.shapes.questions import questions
from sur.standing import read_seconds

if TYPE_CHECKING:
    from sur.config import RunConfig

NAME = "report.html"
_COLOURS = {"complex": "#3b7d4f", "narrative": "#b4533c", "adapter": "#2f5d9b"}
_TITLES = {"complex": "complex prompt", "narrative": "narrative", "adapter": "narrative + adapter"}


def write_report(config: RunConfig, evaluation: Evaluation) -> Path:
    """Write <run_dir>/report.html and return its path."""
    page = (
        Environment(loader=PackageLoader("sur"), autoescape=True, undefined=StrictUndefined)
        .get_template("report.html.j2")
        .render(
            evaluation=evaluation,
            headline=_headline(evaluation),
            titles=_TITLES,
            conditions=CONDITIONS,
            colours=_COLOURS,
            examples=_examples(config),
            bars=_bars(evaluation),
            curves=_curves(config.run_dir / CURVES),
            cache=Store.open(config.store.path).describe(),
            timings=read_seconds(config.run_dir),
            config=config,
        )
    )
    target = config.run_dir / NAME
    partial = target.with_name(f".{NAME}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


def _headline(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The three scores and the closed share of each set."""
    lines = []
    for gap in evaluation.gaps:
        if gap.group == "all":
            scores = {r.condition: r.score for r in evaluation.rows if (r.set, r.group) == (gap.set, "all")}
            lines.append({"set": gap.set, "closed": gap.closed, "scores": scores})
    return lines


def _examples(config: RunConfig) -> list[dict[str, Any]]:
    """Question and pictures (data URIs) of each kept example."""
    made = []
    for name in config.evaluate.sets:
        folder = config.run_dir / "examples" / name
        for index, asked in enumerate(questions(name, config.evaluate.prompts, config.evaluate.seed)):
            paths = {condition: folder / f"{index:03d}-{condition}.png" for condition in CONDITIONS}
            if index >= config.evaluate.examples or not all(path.is_file() for path in paths.values()):
                break
            pictures = {condition: _data_uri("image/png", path.read_bytes()) for condition, path in paths.items()}
            made.append({"set": name, "question": asked, "pictures": pictures})
    return made


def _bars(evaluation: Evaluation) -> str:
    """Scores of all sets and groups with their intervals, as an SVG image."""
    rows = [r for r in evaluation.rows if r.pictures]
    labels = list(dict.fromkeys((r.set, r.group) for r in rows))
    figure, axes = _figure(8, 0.42 * len(labels) + 1)
    for place, condition in enumerate(CONDITIONS):
        chosen = {(r.set, r.group): r.score for r in rows if r.condition == condition}
        values = [chosen[label].value for label in labels]
        errors = [
            [max(0.0, chosen[label].value - chosen[label].low) for label in labels],
            [max(0.0, chosen[label].high - chosen[label].value) for label in labels],
        ]
        y = [i + 0.26 * (place - 1) for i in range(len(labels))]
        axes.barh(y, values, 0.24, color=_COLOURS[condition], label=_TITLES[condition])
        axes.errorbar(values, y, xerr=errors, fmt="none", ecolor="#444444", elinewidth=0.8)
    axes.set_yticks(range(len(labels)), [f"{a}: {b}" for a, b in labels])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("pictures that show exactly what was asked for")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.9 / len(labels)), ncols=3, frameon=False)
    return _svg(figure)


def _curves(path: Path) -> str | None:
    """Losses over steps, as an SVG image; None when nothing was recorded."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if not records:
        return None
    figure, axes = _figure(8, 3)
    for kind, style in (("train", {"alpha": 0.55, "linewidth": 1}), ("validation", {"linewidth": 1.8, "marker": "."})):
        names = dict.fromkeys(name for record in records for name in record.get(kind, {}))
        for name in names:
            points = [(r["step"], r[kind][name]) for r in records if name in r.get(kind, {})]
            axes.plot(*zip(*points, strict=True), label=f"{name}, {kind}", **style)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
