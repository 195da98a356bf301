"""A picture grid: each question's narrative beside its pictures under every condition."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

_BLOCKS = 2


def write_grid(path: Path, prompts: Sequence[str], pictures: Mapping[str, Sequence[Image.Image]]) -> Path:
    """Write a PNG with one line a prompt and one column a condition (`pictures`: title -> a picture a prompt)."""
    from matplotlib.figure import Figure

    lines = -(-len(prompts) // _BLOCKS)
    widths = [2.4, *(1.0 for _ in pictures)] * _BLOCKS
    figure = Figure(figsize=(0.95 * sum(widths), 0.98 * lines + 0.35), layout="constrained")
    axes = figure.subplots(lines, len(widths), squeeze=False, width_ratios=widths)
    for axis in axes.flat:
        axis.axis("off")
    for index, prompt in enumerate(prompts):
        line, block = index % lines, index // lines
        first = block * (1 + len(pictures))
        axes[line][first].text(1, 0.5, textwrap.fill(prompt, 34), ha="right", va="center", fontsize=7.5)
        for place, (title, made) in enumerate(pictures.items(), start=first + 1):
            axes[line][place].imshow(made[index], interpolation="nearest")
            if line == 0:
                axes[line][place].set_title(title, fontsize=8)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png", dpi=150, facecolor="white")
    return partial.replace(path)
