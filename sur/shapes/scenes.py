"""Scenes of coloured shapes, and their pictures.

A scene is either `count` equal objects ("three red circles") or two objects in a relation
("a red circle above a blue square"). A picture is 64 x 64 pixels, RGB, on a fixed dark background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
BACKGROUND = (28, 28, 34)
PALETTE = {
    "red": (225, 40, 45),
    "orange": (250, 140, 20),
    "yellow": (245, 225, 50),
    "green": (40, 170, 70),
    "blue": (45, 90, 235),
    "purple": (150, 60, 190),
    "white": (240, 240, 240),
}
COLOUR_NAMES = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "cross")
RELATIONS = ("above", "left of")
MAX_COUNT = 4
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """One kind of object: a colour of `COLOUR_NAMES` and a shape of `SHAPES`."""

    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for: `count` times `first`, or one `first` `relation` one `second`."""

    first: Thing
    count: int = 1
    relation: str | None = None
    second: Thing | None = None

    def __post_init__(self) -> None:
        if (self.relation is None) != (self.second is None):
            raise ValueError(f"a relation needs a second thing and the reverse, got {self}")
        if self.relation is not None and (self.count != 1 or self.relation not in RELATIONS):
            raise ValueError(f"a relation scene has count 1 and a relation of {RELATIONS}, got {self}")
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"count must lie in 1..{MAX_COUNT}, got {self.count}")

    @property
    def kind(self) -> str:
        """`count` or `relation`."""
        return "count" if self.relation is None else "relation"


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: half of them counts, half relations between two different things."""
    first = Thing(COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))], SHAPES[rng.integers(len(SHAPES))])
    if rng.random() < 0.5:
        return Scene(first, count=int(rng.integers(1, MAX_COUNT + 1)))
    while True:
        second = Thing(COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))], SHAPES[rng.integers(len(SHAPES))])
        if second != first:
            return Scene(first, relation=RELATIONS[rng.integers(2)], second=second)


def render_scene(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw `scene` at a random layout; objects never touch. Returns a 64 x 64 RGB picture."""
    things = [scene.first] * scene.count if scene.second is None else [scene.first, scene.second]
    scale = _OVERSAMPLING
    canvas = Image.new("RGB", (SIZE * scale, SIZE * scale), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for thing, (x, y, radius) in zip(things, _layout(scene, len(things), rng), strict=True):
        jitter = rng.integers(-8, 9, 3)
        colour = tuple(int(np.clip(c + j, 0, 255)) for c, j in zip(PALETTE[thing.colour], jitter, strict=True))
        points = [(scale * (x + radius * u), scale * (y + radius * v)) for u, v in outline(thing.shape)]
        draw.polygon(points, fill=colour)
    return canvas.resize((SIZE, SIZE), Image.Resampling.BOX)


def outline(shape: str) -> list[tuple[float, float]]:
    """Corners of `shape` in a box from -1 to 1, y downwards."""
    if shape == "circle":
        return [(math.cos(t), math.sin(t)) for t in np.linspace(0, 2 * math.pi, 48, endpoint=False)]
    if shape == "square":
        return [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    if shape == "triangle":
        return [(0, -1), (1, 0.9), (-1, 0.9)]
    if shape == "cross":
        a = 0.32
        quarter = [(a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1)]
        return quarter + [(-u, -v) for u, v in quarter]
    raise ValueError(f"unknown shape {shape!r}, expected one of {SHAPES}")


def _layout(scene: Scene, n: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centres and radii in pixels; rejection sampling until gaps and the relation hold."""
    while True:
        radius = float(rng.uniform(8.5, 10.5) if n <= 2 else rng.uniform(7.5, 9.0))
        centres = rng.uniform(radius + 2, SIZE - radius - 2, (n, 2))
        if scene.relation is not None:
            offset = centres[1] - centres[0]
            along, across = (offset[1], offset[0]) if scene.relation == "above" else (offset[0], offset[1])
            if along < 2 * radius + 5 or abs(across) > 0.5 * along:
                continue
        gaps = np.abs(centres[:, None] - centres[None]).max(-1)
        if n > 1 and (gaps + 1e9 * np.eye(n)).min() < 2 * radius + 4:
            continue
        return [(float(x), float(y), radius) for x, y in centres]
