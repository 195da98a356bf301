"""Reads count, colour, shape and relation back from the pixels of a picture.

The oracle knows the palette and the outlines, never the prompt. On rendered pictures it must be right
every time; on generated ones it is the judge of whether the picture shows what the prompt asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from sur.shapes.scenes import BACKGROUND, PALETTE, SHAPES, Scene, Thing, outline

_FOREGROUND_DISTANCE = 90.0
_MIN_AREA_PIXELS = 40
_GRID = 24


@dataclass(frozen=True)
class DetectedObject:
    """One object in a picture: colour and shape, its centre in pixels, and the fit of its outline (IoU, 0..1)."""

    thing: Thing
    x: float
    y: float
    fit: float


def detect_objects(picture: UInt8[np.ndarray, "height width 3"] | Image.Image) -> list[DetectedObject]:
    """All objects in the picture, in no particular order."""
    pixels = np.asarray(picture, dtype=np.float32)
    foreground = np.linalg.norm(pixels - np.array(BACKGROUND, np.float32), axis=-1) > _FOREGROUND_DISTANCE
    labels = np.asarray(ndimage.label(foreground)[0])  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
    objects = []
    for index in range(1, int(labels.max()) + 1):
        mask = labels == index
        if mask.sum() < _MIN_AREA_PIXELS:
            continue
        shape, fit = _shape_of(mask)
        y, x = np.argwhere(mask).mean(0)
        objects.append(DetectedObject(Thing(_colour_of(pixels, mask), shape), float(x), float(y), fit))
    return objects


def facts(scene: Scene, objects: list[DetectedObject]) -> dict[str, bool]:
    """Whether the objects show each fact of the scene: count, colour, shape, and the relation if it has one."""
    expected = [scene.first] * scene.count if scene.second is None else [scene.first, scene.second]
    things = [detected.thing for detected in objects]
    result = {
        "count": len(things) == len(expected),
        "colour": {t.colour for t in things} == {t.colour for t in expected},
        "shape": {t.shape for t in things} == {t.shape for t in expected},
    }
    if scene.relation is not None:
        result["relation"] = _relation_holds(scene, objects)
    return result


def shows(scene: Scene, objects: list[DetectedObject]) -> bool:
    """Whether the picture shows exactly the scene: every object, nothing else, in the right relation."""
    return all(facts(scene, objects).values())


def _relation_holds(scene: Scene, objects: list[DetectedObject]) -> bool:
    firsts = [s for s in objects if s.thing == scene.first]
    seconds = [s for s in objects if s.thing == scene.second]
    if len(objects) != 2 or len(firsts) != 1 or len(seconds) != 1:
        return False
    dx, dy = seconds[0].x - firsts[0].x, seconds[0].y - firsts[0].y
    return (dy > abs(dx)) if scene.relation == "above" else (dx > abs(dy))


def _colour_of(pixels: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]) -> str:
    inner = ndimage.binary_erosion(mask, iterations=2)
    core = np.asarray(inner if inner.any() else mask, dtype=bool)
    median = np.median(pixels[core], axis=0)
    distances = {name: float(np.linalg.norm(median - np.array(rgb))) for name, rgb in PALETTE.items()}
    return min(distances, key=lambda name: distances[name])


def _shape_of(mask: Bool[np.ndarray, "height width"]) -> tuple[str, float]:
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    crop = Image.fromarray(mask.astype(np.uint8) * 255).resize((_GRID, _GRID), Image.Resampling.BILINEAR, box=box)
    grid = np.asarray(crop) > 127
    fits = {shape: float((grid & stencil).sum() / (grid | stencil).sum()) for shape, stencil in STENCILS.items()}
    best = max(fits, key=lambda shape: fits[shape])
    return best, fits[best]


def _stencil(shape: str) -> Bool[np.ndarray, "grid grid"]:
    """The outline of `shape`, filled, stretched to its bounding box on the comparison grid."""
    points = np.array(outline(shape))
    low, high = points.min(0), points.max(0)
    scale = 8 * _GRID
    canvas = Image.new("L", (scale, scale))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in (points - low) / (high - low) * scale], fill=255)
    return np.asarray(canvas.resize((_GRID, _GRID), Image.Resampling.BOX)) > 127


STENCILS = {shape: _stencil(shape) for shape in SHAPES}
