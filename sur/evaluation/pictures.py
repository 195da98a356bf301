"""A folder of pictures, each named by its recipe, so that none is drawn twice and evaluations can share the folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from PIL import Image, PngImagePlugin

from sur.support.errors import ConfigError
from sur.support.files import replacing

DRAWING_VERSION = 1  # to be raised when the same recipe leads to another picture


class Recipe(NamedTuple):
    """Everything that determines a picture, up to rounding (hardware, batch composition).

    pipeline, adapter: fingerprints. weight: the adapter's dial. size: pixels of a side. t5_tokens: number of T5's
    states. None in size and t5_tokens stands for the pipeline's own. libraries: versions, such as "torch 2.9".
    """

    pipeline: str
    adapter: str | None
    weight: float | None
    prompt: str
    seed: int
    steps: int
    guidance: float
    size: int | None
    t5_tokens: int | None
    dtype: str
    device: str
    libraries: tuple[str, ...]

    @property
    def text(self) -> str:
        """The recipe as JSON; the picture's file carries it too."""
        return json.dumps({"version": DRAWING_VERSION, **self._asdict()}, sort_keys=True)

    @property
    def key(self) -> str:
        """Name of the picture: a hash of the recipe."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


class Pictures:
    """PNG files `<root>/<two digits>/<key>.png`. A file exists whole or not at all, whenever a writer is killed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, recipe: Recipe) -> Path:
        """The path of the picture, drawn or not."""
        key = recipe.key
        return self.root / key[:2] / f"{key}.png"

    def write(self, recipe: Recipe, picture: Image.Image) -> None:
        """Add a picture to the folder unless it is there; its file has the recipe as the PNG text `recipe`."""
        path = self.path(recipe)
        if path.is_file():
            return
        metadata = PngImagePlugin.PngInfo()
        metadata.add_text("recipe", recipe.text)
        with replacing(path, durable=True) as partial:
            picture.save(partial, "PNG", pnginfo=metadata)
        for leftover in path.parent.glob(f".{path.name}.*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)


def read_picture(path: Path) -> Image.Image:
    """The decoded picture of a file. Raises ConfigError when the file is damaged."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} is no picture ({error}); remove it and evaluate again: it is drawn anew") from error
