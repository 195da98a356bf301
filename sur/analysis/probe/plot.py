"""The picture of a probe: what each layer adds on held-back rows, and how like the target it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sur.analysis.probe.results import NAME, Findings, Measured
from sur.config.probe import SPLITS
from sur.evaluation.statistics import Interval

_TITLES = {"words": "words never seen", "rows": "rows like those seen"}


def plot(folder: Path, findings: Findings) -> list[Path]:
    """Write probe.png and probe.svg: R², retrieval and CKA over layers, a line for each LLM and pooling."""
    from matplotlib.figure import Figure

    splits = [split for split in SPLITS if split in findings.candidates[0].held]
    figure = Figure(figsize=(4.4 * (len(splits) + 1), 6.4), layout="constrained")
    panels = figure.subplots(2, len(splits) + 1, squeeze=False)
    for column, split in enumerate(splits):
        r2, retrieval = panels[:, column]
        first = findings.candidates[0].held[split]
        _lines(r2, findings, lambda each, s=split: each.held[s].r2["both"])
        _level(r2, first.r2["text"], "text encoder alone")
        r2.set_title(f"{_TITLES[split]}\nheld-out R², LLM and text encoder", fontsize=10)
        _lines(retrieval, findings, lambda each, s=split: each.held[s].retrieval["both"])
        _level(retrieval, first.retrieval["text"], "text encoder alone")
        retrieval.set_title(f"complex prompt retrieved, of {first.gallery:.0f}", fontsize=10)
    decides, similar = panels[:, -1]
    split = findings.ranked_on
    _lines(decides, findings, lambda each: each.held[split].gain)
    _level(decides, findings.noise[split].gain, "random numbers")
    decides.legend(*[each[-1:] for each in decides.get_legend_handles_labels()], frameon=False, fontsize=8)
    decides.set_title(f"{_TITLES[split]}\ngain in held-out R² (decides)", fontsize=10)
    _lines(similar, findings, lambda each: each.cka)
    _level(similar, findings.text_cka, "text encoder")
    similar.set_title("CKA with the complex prompt", fontsize=10)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("layer")
    panels[0, 0].legend(frameon=False, fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    return [_save(figure, folder / f"{NAME}.{kind}") for kind in ("png", "svg")]


def _lines(panel: Any, findings: Findings, of: Callable[[Measured], Interval]) -> None:
    """A line with its interval for each LLM and pooling, and of each for the ways in which it was cached."""
    lines: dict[str, list[Measured]] = {}
    cached: dict[str, set[str]] = {}
    for each in findings.candidates:
        cached.setdefault(f"{each.model}, {each.pooling}", set()).add(each.stored)
    for each in findings.candidates:
        label = f"{each.model}, {each.pooling}"
        lines.setdefault(f"{label} of {each.stored}" if len(cached[label]) > 1 else label, []).append(each)
    for label, same in lines.items():
        values = [of(each) for each in same]
        _line(panel, [each.layer for each in same], values, label)


def _line(panel: Any, layers: Sequence[int], values: Sequence[Interval], label: str) -> None:
    (line,) = panel.plot(layers, [each.value for each in values], marker=".", label=label)
    panel.fill_between(
        layers, [each.low for each in values], [each.high for each in values], color=line.get_color(), alpha=0.15
    )


def _level(panel: Any, value: Interval, label: str) -> None:
    """What there is without an LLM."""
    panel.axhline(value.value, color="0.4", linestyle="--", linewidth=1, label=label)


def _save(figure: Any, path: Path) -> Path:
    kind = path.suffix[1:]
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format=kind, dpi=110, **({"metadata": {"Date": None}} if kind == "svg" else {}))
    return partial.replace(path)
