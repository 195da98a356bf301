"""Arguments that several commands share, and how they show the same things."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sur.config import RunConfig

ConfigArgument = Annotated[Path, typer.Argument(help="YAML file, such as configs/shapes.yaml.", show_default=False)]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Values that replace the file's.")
]
StoreArgument = Annotated[
    str, typer.Argument(help="A store's folder or URL, or its run's config file or folder.", show_default=False)
]

PIPE_WIDTH = 160  # columns when the output is not a terminal, so that tables are not cut to 80


def read_config(path: Path, overrides: list[str] | None) -> "RunConfig":
    """The configuration that the arguments describe."""
    from sur.config import load_config

    return load_config(path, overrides or [])


def config_path(argument: str) -> Path | None:
    """The config file that an argument is, or that of the run whose folder it is; None for anything else."""
    from sur.settings import RESOLVED_NAME

    path = Path(argument).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return path
    resolved = path / RESOLVED_NAME
    return resolved if resolved.is_file() and resolved.read_bytes().startswith(b"run_dir:") else None


def store_path(argument: str) -> Path | str:
    """The store that an argument names, itself or through a config file or run folder."""
    if (config := config_path(argument)) is not None:
        return read_config(config, None).store.path
    from cache import store_location

    return store_location(argument)


def console() -> Console:
    """Where tables go."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=PIPE_WIDTH)
