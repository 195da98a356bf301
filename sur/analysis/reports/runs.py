"""The record of a run that its folder holds so far: settings, curves, scores, pictures, timings, quarantined rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sur.config.run_folder import RunFolder
from sur.data import Quarantined, read_quarantine
from sur.evaluation.prompts.prompts import Condition
from sur.evaluation.results import Evaluation, Single, read_singles
from sur.support.errors import NotFound
from sur.support.timings import read_seconds
from sur.training.tracking.curves import flat, read_curves

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder shows it; a part that is not written yet is empty or None.

    settings: of config.yaml, by dotted names. curves: records as `training.tracking.curves` writes them. seconds: of
    each stage.
    """

    name: str
    path: Path
    settings: Mapping[str, Any]
    curves: Sequence[Mapping[str, Any]]
    evaluation: Evaluation | None
    singles: Sequence[Single]
    seconds: Mapping[str, float]
    quarantined: Sequence[Quarantined]

    @property
    def report(self) -> Path | None:
        """The report that the run's evaluation wrote, if there is one."""
        path = RunFolder(self.path).report
        return path if path.is_file() else None

    def picture(self, single: Single, condition: Condition) -> Path | None:
        """The first picture of a prompt; None if there is none, or if it lies outside the folder of pictures."""
        files = single.pictures.get(condition)
        if not files or self.evaluation is None:
            return None
        for root in (Path(self.evaluation.pictures), RunFolder(self.path).pictures):  # the folder may have been moved
            path = (root / files[0]).resolve()
            if path.is_relative_to(root.resolve()) and path.is_file():
                return path
        return None


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """The record of a run's folder, to which the run may still be writing.

    Raises: NotFound when the folder is not a run's.
    """
    files = RunFolder(folder)
    telling = (files.config, files.curves, files.evaluation)
    if not any(file.is_file() for file in telling):
        raise NotFound(
            f"{folder} is no run's folder: it has none of {', '.join(file.name for file in telling)}. Give a folder "
            "that `run_dir` of a config names, such as runs/shapes"
        )
    evaluation = _evaluation(files.evaluation)
    return RunRecord(
        name or str(folder),
        folder,
        _settings(files.config),
        read_curves(files.curves),
        evaluation,
        read_singles(folder) if evaluation is not None else [],
        read_seconds(folder),
        read_quarantine(files.quarantine),
    )


def run_names(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: its last part, or as many of its last parts as tell it from the others."""
    depth = 1
    parts = [folder.absolute().parts for folder in folders]
    while depth < 8 and len({folder_parts[-depth:] for folder_parts in parts}) < len(parts):
        depth += 1
    return ["/".join(folder_parts[-depth:]) for folder_parts in parts]


def stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, times and sizes of the files of a run's record, which change when something is added."""
    run = RunFolder(folder)
    files = (run.config, run.curves, run.evaluation, run.scores, run.quarantine, run.report)
    return tuple((f.name, (s := f.stat()).st_mtime_ns, s.st_size) for f in files if f.is_file())


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # being written, or cut short
        _log.warning("%s cannot be read: %s", path, error)
        content = {}
    return {name.replace("/", "."): value for name, value in flat(content if isinstance(content, dict) else {}).items()}


def _evaluation(path: Path) -> Evaluation | None:
    try:
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):  # not evaluated yet, or by another version
        return None
