"""A folder of pictures by what made them, so that none is drawn twice and several evaluations can share it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image, PngImagePlugin

from sur.support.errors import ConfigError

DRAWING_VERSION = 1  # to be raised when the same recipe leads to another picture


class Recipe(NamedTuple):
    """All that a picture depends on but the rounding of processors and of its neighbours in a batch.

    pipeline, adapter: fingerprints. weight: the adapter's dial. size: pixels, t5_tokens: T5's states; None = the
    pipeline's own. libraries: versions, as "torch 2.9".
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
        """As JSON; it is also written into the picture."""
        return json.dumps({"version": DRAWING_VERSION, **self._asdict()}, sort_keys=True)

    @property
    def key(self) -> str:
        """Name of the picture."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


class Pictures:
    """PNG files `<root>/<two digits>/<key>.png`. A file is there whole or not at all, whenever a writer is killed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, recipe: Recipe) -> Path:
        """Where the picture is, or will be."""
        key = recipe.key
        return self.root / key[:2] / f"{key}.png"

    def write(self, recipe: Recipe, picture: Image.Image) -> None:
        """Put a picture into the folder, unless it is there; it carries its recipe as the PNG text `recipe`."""
        path = self.path(recipe)
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        about = PngImagePlugin.PngInfo()
        about.add_text("recipe", recipe.text)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("wb") as file:
            picture.save(file, "PNG", pnginfo=about)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
            left.unlink(missing_ok=True)


def read_picture(path: Path) -> Image.Image:
    """The picture of a file, decoded. Raises ConfigError when it is damaged."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} is no picture ({error}); remove it and evaluate again: it is drawn anew") from error
