"""Command `init`: a commented configuration file to start from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sur.cli.arguments import say


class Template(StrEnum):
    """What a new configuration can start from."""

    SHAPES = "shapes"
    SD15 = "sd15"
    SDXL = "sdxl"


EXAMPLE_OF = {Template.SHAPES: "shapes", Template.SD15: "sd15-qwen3-8b", Template.SDXL: "sdxl-qwen3-8b"}


def init(
    template: Annotated[
        Template,
        typer.Argument(help="shapes: the demo; sd15: Stable Diffusion 1.5; sdxl: Stable Diffusion XL.", metavar="NAME"),
    ] = Template.SHAPES,
    file: Annotated[
        Path | None, typer.Argument(help="File to write (default: NAME.yaml in this folder).", metavar="FILE")
    ] = None,
) -> None:
    """Write a commented configuration file to start from.

    NAME is shapes, sd15 or sdxl. A file that exists is never overwritten.
    """
    from sur.config.example_files import example_file
    from sur.support.errors import ConfigError

    path = file if file is not None else Path(f"{template}.yaml")
    text = example_file(EXAMPLE_OF[template]).read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists and is not overwritten; give another FILE, or remove it") from None
    say(f"written: {path}")
    if template is Template.SHAPES:
        say(f"next: sur demo --config {path} (the shapes world), or set data.path to rows of your own: sur plan {path}")
    else:
        say(f"next: set data.path in it, then: sur plan {path}")
