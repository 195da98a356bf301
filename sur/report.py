"""One self-contained HTML page about a run: pictures, scores, loss curves, what the cache holds, timings."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from cache import Store
from sur.evaluation.prompts import CONDITIONS, Condition
from sur.evaluation.results import About, Asked, Comparison, Evaluation, Gap, Row
from sur.evaluation.statistics import Interval
from sur.evaluation.subject import Subject
from sur.examples import read_examples
from sur.fit import CURVES
from sur.grid import NAME as GRID
from sur.grid import write_grid
from sur.standing import read_seconds

if TYPE_CHECKING:
    from sur.config import RunConfig

NAME = "report.html"
_LARGEST = 256  # pixels of a picture's side on the page
T = TypeVar("T", Row, Gap, Comparison)
_TITLES: dict[Condition, str] = {
    "narrative": "narrative", "adapter": "narrative + adapter", "complex": "complex prompt",
}  # fmt: skip


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
    page = (
        Environment(loader=PackageLoader("sur"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        .get_template("report.html.j2")
        .render(
            sets=meanings,
            scores={each.name: list(_judged(evaluation, each)) for each in evaluation.sets},
            titles=_TITLES,
            examples=examples,
            picture=_picture,
            curves=_curves(subject.folder / CURVES),
            cache=None if run is None else Store.open(run.store.path).describe(),
            store=None if run is None else _shown(run.store.path),
            timings=read_seconds(subject.folder),
            settings=subject.settings,
            pipeline=_shown(subject.base[0]),
            folder=_shown(subject.folder),
            config=None if run is None else f"{_shown(subject.folder)}/config.yaml",
            adapter=_shown(evaluation.adapter),
        )
    )
    target = subject.folder / NAME
    partial = target.with_name(f".{NAME}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


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


def _picture(path: Path) -> str:
    """A picture for the page; one larger than it is shown is made smaller."""
    with Image.open(path) as picture:
        if picture.width <= _LARGEST:
            return _data_uri("image/png", path.read_bytes())
        picture.thumbnail((_LARGEST, _LARGEST))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=88)
        return _data_uri("image/webp", buffer.getvalue())


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
