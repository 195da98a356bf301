"""The configuration files that the package ships, each with a name: `configs/shapes.yaml` is `shapes`.

`examples` is a link to `configs/` at the top level of the repository; a wheel holds the files themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

EXAMPLES = Path(__file__).parent / "examples"


def example_names() -> list[str]:
    """Names of the configuration files that the package ships, sorted."""
    return sorted(file.stem for file in EXAMPLES.glob("*.yaml"))


def example_file(name: str) -> Path:
    """The path of a shipped configuration file; it does not exist for a name that is unknown."""
    return EXAMPLES / f"{name}.yaml"


def config_file(path: str | os.PathLike[str]) -> Path:
    """The file that an argument means: a path, or the name of a shipped file, such as `shapes`.

    A file of the user's own comes first, and so does the folder of a run.
    """
    own, name = Path(path), os.fspath(path)
    if own.is_file() or (own / "config.yaml").is_file() or name not in example_names():
        return own
    return example_file(name)
