"""One PNG for a README: each set's first prompts with their pictures under every condition, marked right or wrong."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sur.evaluation.prompts.prompts import CONDITIONS, TITLES, Condition
from sur.evaluation.report.examples import Example
from sur.support.files import replacing
from sur.support.images import ImageError, decode

_TITLES = {**TITLES, "adapter": "+ adapter"}  # a column is narrow
_MARKS = {True: ("✓", "#1a7f37"), False: ("✗", "#c62828")}

# Pixels. A picture is a whole multiple of the shapes world's 64, so that none of its own is smeared; larger shrink.
_PICTURE, _GAP, _TEXT, _BETWEEN, _HEAD, _EDGE = 192, 30, 372, 56, 124, 26
_BLOCK = _TEXT + len(CONDITIONS) * (_PICTURE + _GAP) - _GAP
_DPI = 100
_log = logging.getLogger(__name__)


def write_grid(
    path: Path, examples: Mapping[str, Sequence[Example]], meanings: Mapping[str, str], lines: int = 6
) -> Path:
    """Write a PNG with one block for each set, side by side; returns its path.

    A block has one line for each prompt and one column for each condition. A picture that cannot be read is left out,
    with a remark in its place and in the log.
    """
    from matplotlib.figure import Figure

    blocks = {name: of_set[:lines] for name, of_set in examples.items() if of_set}
    width = 2 * _EDGE + len(blocks) * (_BLOCK + _BETWEEN) - _BETWEEN
    height = 2 * _EDGE + _HEAD + max(map(len, blocks.values())) * (_PICTURE + _GAP) - _GAP
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    for block, (name, of_set) in enumerate(blocks.items()):
        left, top = _EDGE + block * (_BLOCK + _BETWEEN), height - _EDGE
        _write(figure, left, top - 18, name, 30, ha="left", weight="bold")
        _write(figure, left, top - 56, meanings[name], 22, ha="left", color="#555555")
        for line, example in enumerate(of_set):
            bottom = top - _HEAD - line * (_PICTURE + _GAP) - _PICTURE
            narrative = textwrap.fill(example.narrative, 26)
            _write(figure, left + _TEXT - 22, bottom + _PICTURE / 2, narrative, 23, ha="right")
            for column, condition in enumerate(CONDITIONS):
                x = left + _TEXT + column * (_PICTURE + _GAP)
                if line == 0:
                    _write(figure, x + _PICTURE / 2, top - _HEAD + 24, _TITLES[condition], 24, ha="center")
                if condition in example.pictures:
                    _draw(figure, x, bottom, example, condition)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI, pil_kwargs={"optimize": True})
    return path


def _draw(figure: Any, x: float, bottom: float, example: Example, condition: Condition) -> None:
    """One picture with its mark, or a remark in its place."""
    try:
        figure.figimage(_pixels(example.pictures[condition]), x, bottom, origin="upper")
    except (ImageError, OSError) as error:
        _log.warning("the picture %s is left out: %s", example.pictures[condition], error)
        _write(figure, x + _PICTURE / 2, bottom + _PICTURE / 2, "cannot be read", 20, ha="center")
        return
    if example.wrong is not None:
        _mark(figure, x + _PICTURE - 4, bottom + _PICTURE - 4, not example.wrong[condition])


def _pixels(path: Path) -> UInt8[np.ndarray, "192 192 3"]:
    picture = decode(path.read_bytes())
    way = Image.Resampling.NEAREST if picture.width <= _PICTURE else Image.Resampling.LANCZOS
    return np.asarray(picture.resize((_PICTURE, _PICTURE), way))


def _write(figure: Any, x: float, y: float, text: str, size: float, **style: Any) -> None:
    """Write `text`; place and size are in pixels, from the lower left."""
    figure.text(x, y, text, fontsize=size * 72 / _DPI, va="center", transform=None, **style)


def _mark(figure: Any, x: float, y: float, right: bool) -> None:
    """Draw a badge whose sign, not only its colour, says whether the oracle found the picture right."""
    from matplotlib.patches import Circle

    sign, colour = _MARKS[right]
    figure.add_artist(Circle((x, y), 20, transform=None, facecolor=colour, edgecolor="white", linewidth=2.5))
    _write(figure, x, y - 1, sign, 27, ha="center", color="white", weight="bold")
