"""What a run has left in its folder so far: settings, curves, scores, pictures, timings, quarantined rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sur.config.load import RESOLVED_NAME
from sur.data import Quarantined
from sur.evaluation.prompts.prompts import Condition
from sur.evaluation.results import Evaluation, Single, read_singles
from sur.support.errors import NotFound
from sur.support.timings import read_seconds
from sur.training.tracking.curves import flat, read_curves

CURVES, QUARANTINE = "curves.jsonl", "quarantine.jsonl"
RESULT, SINGLE, REPORT = "evaluation.json", "evaluation.jsonl", "report.html"
_ANY = (RESOLVED_NAME, CURVES, RESULT)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """A run as its folder shows it; what is not there yet is empty or None.

    settings: of config.yaml, by dotted names. curves: records as `training.tracking.curves` writes
    them. seconds: of each stage.
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
        """Its own report, if it has one."""
        path = self.path / REPORT
        return path if path.is_file() else None

    def picture(self, single: Single, condition: Condition) -> Path | None:
        """The first picture of a prompt, None where there is none, or it lies outside the folder of pictures."""
        files = single.pictures.get(condition)
        if not files or self.evaluation is None:
            return None
        for root in (Path(self.evaluation.pictures), self.path / "pictures"):  # the folder may have been moved
            path = (root / files[0]).resolve()
            if path.is_relative_to(root.resolve()) and path.is_file():
                return path
        return None


def read_run(folder: Path, name: str | None = None) -> RunFolder:
    """Read a run's folder; it may be growing.

    Raises: NotFound when it is none.
    """
    if not any((folder / file).is_file() for file in _ANY):
        raise NotFound(
            f"{folder} is no run's folder: it has none of {', '.join(_ANY)}. Give a folder that `run_dir` of a config "
            "names, such as runs/shapes"
        )
    evaluation = _evaluation(folder / RESULT)
    return RunFolder(
        name or str(folder),
        folder,
        _settings(folder / RESOLVED_NAME),
        read_curves(folder / CURVES),
        evaluation,
        read_singles(folder) if evaluation is not None else [],
        read_seconds(folder),
        list(_quarantined(folder / QUARANTINE)),
    )


def run_names(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: its last part, or as much of its path as tells it from the others."""
    depth = 1
    parts = [folder.absolute().parts for folder in folders]
    while depth < 8 and len({each[-depth:] for each in parts}) < len(parts):
        depth += 1
    return ["/".join(each[-depth:]) for each in parts]


def stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when something is added to a run's folder."""
    files = [folder / name for name in (RESOLVED_NAME, CURVES, RESULT, SINGLE, QUARANTINE, REPORT)]
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
    except (FileNotFoundError, ValidationError):  # none yet, or of another version
        return None


def _quarantined(path: Path) -> Iterator[Quarantined]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in filter(str.strip, text.splitlines()):
        try:
            found = json.loads(line)
            yield Quarantined(**{field.name: found[field.name] for field in fields(Quarantined)})
        except (ValueError, TypeError, KeyError):  # cut short, as by a full disk
            _log.warning("a line of %s cannot be read: %.80s", path, line)
