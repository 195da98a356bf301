"""Plots of trainings as SVG, transparent for pages of any colour."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from sur.training.tracking.curves import flat

CurveRecord = Mapping[str, Any]  # {"step": ..., "train": {loss: value}, "validation": ...}, as `Curves` writes it
_STYLES = (("train", {"alpha": 0.55, "linewidth": 1}), ("validation", {"linewidth": 1.8, "marker": "."}))


def plot_losses(records: Sequence[CurveRecord]) -> bytes:
    """An SVG of every loss of one training over its steps."""
    figure, axes = _figure(9, 3.2)
    for kind, style in _STYLES:
        names = dict.fromkeys(name for record in records for name in record.get(kind, {}))
        for name in names:
            points = [(r["step"], r[kind][name]) for r in records if name in r.get(kind, {})]
            axes.plot(*zip(*points, strict=True), label=f"{name}, {kind}", **style)
    axes.set_yscale("log")
    axes.set_ylabel("loss")
    return _svg(figure, axes)


def compared_names(curves: Mapping[str, Sequence[CurveRecord]]) -> list[str]:
    """Names of the recorded numbers, such as train/alignment, in the order of their first records."""
    return list(dict.fromkeys(name for records in curves.values() for record in records for name in flat(record)))


def plot_compared(curves: Mapping[str, Sequence[CurveRecord]], name: str) -> bytes:
    """An SVG of one recorded number of several trainings, by their names, over the steps."""
    figure, axes = _figure(6.4, 2.7)
    values: list[float] = []
    for run, records in curves.items():
        points = [(r["step"], value) for r in records if (value := flat(r).get(name)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=run, linewidth=1.2, marker="." if len(points) < 60 else "")
            values += [value for _, value in points]
    if values and min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set_ylabel(name)
    return _svg(figure, axes)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("step")
    return figure, axes


def _svg(figure: Any, axes: Any) -> bytes:
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
