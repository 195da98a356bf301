"""Curves of a training: always a file of JSON lines, and accelerate's trackers (TensorBoard and others) besides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "sur-adapter"


class Curves:
    """Writes records {"step": ..., "train": {loss: value}, ...} of a run, from a step on; a context manager.

    Entering it cuts off what an earlier process recorded after that step. Only the main process writes.
    """

    def __init__(self, path: Path, step: int, accelerator: Accelerator) -> None:
        self._path, self._step = path, step
        self._accelerator = accelerator
        self._file: TextIO | None = None

    def __enter__(self) -> Curves:
        if self._accelerator.is_main_process:
            self._file = _open_at(self._path, self._step)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()
        for tracker in self._accelerator.trackers:
            tracker.finish()
        self._accelerator.trackers = []

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
        self._accelerator.log(flat(record), step=record["step"])

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._file is not None:
            self._file.flush()


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The records of a curves file; an unfinished last line is left out. An empty list where there is no file."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def start_trackers(
    accelerator: Accelerator, names: Sequence[str] | None, folder: Path, settings: Mapping[str, Any], step: int
) -> None:
    """Start trackers by name on the main process; None means TensorBoard where it is installed.

    Trackers get the plain values of `settings` and the curves, nothing else: no paths, addresses or environment.
    Their files lie below `folder`. Raises ConfigError for a tracker that is unknown or not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers, get_available_trackers

    installed = sorted(str(name) for name in get_available_trackers())
    if names is None:
        names = [name for name in ("tensorboard",) if name in installed]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConfigError(f"train.trackers: accelerate knows no tracker {name!r}, only {known}")
        if name not in installed:
            raise ConfigError(
                f"train.trackers names {name}, which is not installed; pip install {name}, or leave it out"
            )
    if not names:
        return
    accelerator.project_configuration.logging_dir = str(folder)
    accelerator.log_with = filter_trackers(list(names), str(folder))
    plain = {name: value for name, value in flat(settings).items() if isinstance(value, (bool, int, float, str))}
    accelerator.init_trackers(PROJECT, plain, {"tensorboard": {"purge_step": step + 1}})


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by names such as train/alignment, without the step."""
    named: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            named |= flat(value, f"{prefix}{name}/")
        elif name != "step":
            named[f"{prefix}{name}"] = value
    return named


def _open_at(path: Path, step: int) -> TextIO:
    """The curves file, cut back to what a checkpoint at `step` had seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() and step else []
    if lines and not lines[-1].endswith("}"):  # cut short by a power failure
        lines.pop()
    path.write_text("".join(line + "\n" for line in lines if json.loads(line)["step"] <= step))
    return path.open("a")
