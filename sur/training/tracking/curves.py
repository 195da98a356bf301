"""Curves of a training: always a file of JSON lines, and accelerate's trackers (TensorBoard and others) besides."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sur.support.errors import ConfigError
from sur.support.files import file_lines, named_errors, write_text

if TYPE_CHECKING:
    from accelerate import Accelerator

PROJECT = "sur-adapter"
_log = logging.getLogger(__name__)


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
        try:
            if self._file is not None:
                with named_errors(self._path):
                    self._file.close()
        finally:
            for tracker in self._accelerator.trackers:
                tracker.finish()
            self._accelerator.trackers = []

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        if self._file is not None:
            with named_errors(self._path):
                self._file.write(json.dumps(record) + "\n")
        self._accelerator.log(flat(record), step=record["step"])

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._file is not None:
            with named_errors(self._path):
                self._file.flush()


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The records of a curves file, without lines that a crash cut short. An empty list where there is no file."""
    return [record for record, _ in _records(path)]


def tracker_names(names: Sequence[str] | None) -> list[str]:
    """The trackers to start; for None TensorBoard where it is installed.

    Raises ConfigError for a tracker that is unknown or not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    installed = sorted(str(name) for name in get_available_trackers())
    if names is None:
        return [name for name in ("tensorboard",) if name in installed]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
            raise ConfigError(f"train.trackers: accelerate knows no tracker {name!r}, only {known}")
        if name not in installed:
            raise ConfigError(
                f"train.trackers names {name}, which is not installed; pip install {name}, or leave it out"
            )
    return list(names)


def start_trackers(
    accelerator: Accelerator, names: Sequence[str] | None, folder: Path, settings: Mapping[str, Any], step: int
) -> None:
    """Start trackers by name on the main process; None means TensorBoard where it is installed.

    Trackers get the plain values of `settings` and the curves, nothing else: no paths, addresses or environment.
    Their files lie below `folder`. Raises ConfigError for a tracker that is unknown or not installed.
    """
    from accelerate.tracking import filter_trackers

    names = tracker_names(names)
    if not names:
        return
    accelerator.project_configuration.logging_dir = str(folder)
    accelerator.log_with = filter_trackers([*names], str(folder))
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
    kept = [line for record, line in _records(path) if record["step"] <= step] if step else []
    write_text(path, "".join(line + "\n" for line in kept))
    return path.open("a", encoding="utf-8")


def _records(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Every record of a curves file with its line; a line that is no record is left out.

    A run that is killed cuts the last line at any place. The curves are there to be looked at, so such a line ends no
    training; one before the last, which nothing of ours leaves behind, is told.
    """
    *lines, last = file_lines(path, "replace") if path.is_file() else [""]
    for number, line in enumerate([*lines, last], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            yield record, line
        elif number <= len(lines):
            _log.warning("line %d of %s is no record and is left out: %.80r", number, path, line)
