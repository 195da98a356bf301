"""Arguments that several commands share, and what the arguments name."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sur.support.formatting import visible
from sur.support.terminal import PlainConsole

if TYPE_CHECKING:
    from sur.config.run import RunConfig

ConfigArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="YAML file, or the name of a shipped one, such as shapes.", show_default=False
    ),
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="section.key=value", help="Settings that replace those of the file.")
]
StoreArgument = Annotated[
    str,
    typer.Argument(
        metavar="STORE", help="A store's folder or URL, or its run's config file or folder.", show_default=False
    ),
]

PIPE_WIDTH = 160  # columns when the output is not a terminal, so that tables are not cut to 80


def read_config(path: Path, overrides: list[str] | None) -> "RunConfig":
    """The configuration of a file with overrides."""
    from sur.config.run import load_config

    return load_config(path, overrides or [])


def run_config(argument: str, overrides: list[str] | None = None) -> "RunConfig | None":
    """The configuration of a run given by its config file, a shipped file's name or its folder; None for others.

    Raises: ConfigError for a folder whose file belongs to another run, as in a copied folder.
    """
    from sur.config.example_files import config_file
    from sur.config.run_folder import RunFolder
    from sur.support.errors import ConfigError

    path = Path(argument) if Path(argument).exists() else config_file(argument)
    if path.suffix in (".yaml", ".yml"):
        return read_config(path, overrides)
    file = RunFolder(path).config
    if not file.is_file() or not re.search(rb"^run_dir:", file.read_bytes(), re.MULTILINE):
        return None
    config = read_config(file, overrides)
    if config.run_dir.resolve() != path.resolve():
        raise ConfigError(
            f"{file} is of the run folder {config.run_dir} (seen from the current directory), not of {path}; "
            "give a store or a config file"
        )
    return config


def store_path(argument: str) -> Path | str:
    """Folder or URL of the store that an argument names, directly or by its run's config file or folder."""
    if (config := run_config(argument)) is not None:
        return config.store.path
    from sur.cache import store_location

    return store_location(argument)


def console() -> PlainConsole:
    """The console that tables are printed to."""
    terminal = PlainConsole()
    return terminal if terminal.is_terminal else PlainConsole(width=PIPE_WIDTH)


def say(text: str = "", err: bool = False) -> None:
    """Print a text, with characters that would steer the terminal shown; `err`: to stderr."""
    typer.echo(visible(text), err=err)
