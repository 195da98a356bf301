"""The plots of a probe: the gain of each layer on held-back rows, and its CKA with the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sur.analysis.probe.results import FILE_STEM, CandidateScores, ProbeResult
from sur.config.probe import SPLITS
from sur.evaluation.statistics import Interval
from sur.support.files import replacing

_TITLES = {"words": "words never seen", "rows": "rows like those seen"}


def write_plots(folder: Path, result: ProbeResult) -> list[Path]:
    """Write probe.png and probe.svg; returns their paths.

    They show R², retrieval and CKA over layers, a line for each LLM and pooling.
    """
    from matplotlib.figure import Figure

    splits = [split for split in SPLITS if split in result.candidates[0].held]
    figure = Figure(figsize=(4.4 * (len(splits) + 1), 6.4), layout="constrained")
    panels = figure.subplots(2, len(splits) + 1, squeeze=False)
    for column, split in enumerate(splits):
        r2, retrieval = panels[:, column]
        first = result.candidates[0].held[split]
        _draw_lines(r2, result, lambda candidate, s=split: candidate.held[s].r2["both"])
        _draw_level(r2, first.r2["text"], "text encoder alone")
        r2.set_title(f"{_TITLES[split]}\nheld-out R², LLM and text encoder", fontsize=10)
        _draw_lines(retrieval, result, lambda candidate, s=split: candidate.held[s].retrieval["both"])
        _draw_level(retrieval, first.retrieval["text"], "text encoder alone")
        retrieval.set_title(f"complex prompt retrieved, of {first.gallery:.0f}", fontsize=10)
    gain, similarity = panels[:, -1]
    split = result.ranked_on
    _draw_lines(gain, result, lambda candidate: candidate.held[split].gain)
    _draw_level(gain, result.noise[split].gain, "random numbers")
    gain.legend(*[entries[-1:] for entries in gain.get_legend_handles_labels()], frameon=False, fontsize=8)
    gain.set_title(f"{_TITLES[split]}\ngain in held-out R² (decides)", fontsize=10)
    _draw_lines(similarity, result, lambda candidate: candidate.cka)
    _draw_level(similarity, result.text_cka, "text encoder")
    similarity.set_title("CKA with the complex prompt", fontsize=10)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("layer")
    panels[0, 0].legend(frameon=False, fontsize=8)
    return [_save(figure, folder / f"{FILE_STEM}.{kind}") for kind in ("png", "svg")]


def _draw_lines(panel: Any, result: ProbeResult, score: Callable[[CandidateScores], Interval]) -> None:
    """Draw a line with its interval for each LLM and pooling; one for each stored pooling, where there are several."""
    lines: dict[str, list[CandidateScores]] = {}
    stored: dict[str, set[str]] = {}
    for candidate in result.candidates:
        stored.setdefault(f"{candidate.model}, {candidate.pooling}", set()).add(candidate.stored)
    for candidate in result.candidates:
        label = f"{candidate.model}, {candidate.pooling}"
        lines.setdefault(f"{label} of {candidate.stored}" if len(stored[label]) > 1 else label, []).append(candidate)
    for label, candidates in lines.items():
        _draw_line(panel, [c.layer for c in candidates], [score(c) for c in candidates], label)


def _draw_line(panel: Any, layers: Sequence[int], values: Sequence[Interval], label: str) -> None:
    (line,) = panel.plot(layers, [value.value for value in values], marker=".", label=label)
    low, high = [value.low for value in values], [value.high for value in values]
    panel.fill_between(layers, low, high, color=line.get_color(), alpha=0.15)


def _draw_level(panel: Any, value: Interval, label: str) -> None:
    """Draw a horizontal line at a value that no LLM has a part in."""
    panel.axhline(value.value, color="0.4", linestyle="--", linewidth=1, label=label)


def _save(figure: Any, path: Path) -> Path:
    kind = path.suffix[1:]
    with replacing(path) as partial:
        figure.savefig(partial, format=kind, dpi=110, **({"metadata": {"Date": None}} if kind == "svg" else {}))
    return path
