"""The seconds that each stage of a run has taken so far, in <run_dir>/timings.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sur.support.errors import shown_errors
from sur.support.files import write_text

FILE_NAME = "timings.json"
STAGES = ("extract", "train", "evaluate")


@contextmanager
def timed(run_dir: Path, stage: str, progress: Callable[[], int]) -> Iterator[None]:
    """Add the seconds of the block to those of a stage if the stage got further, also when the block is stopped.

    progress: how far the stage is (partitions, steps). A stage that starts from 0 starts its time anew.
    """
    before, began = progress(), time.monotonic()
    try:
        yield
    finally:
        with suppress(OSError, *shown_errors()):  # an error here must not hide the one that ended the block
            if progress() != before:
                earlier = read_seconds(run_dir).get(stage, 0.0) if before else 0.0
                note_seconds(run_dir, stage, earlier + time.monotonic() - began)


def note_seconds(run_dir: Path, stage: str, seconds: float) -> None:
    """Write down the seconds that a stage has taken in all."""
    content = {**read_seconds(run_dir), stage: round(seconds, 1)}
    in_order = {name: content[name] for name in STAGES if name in content}
    write_text(run_dir / FILE_NAME, json.dumps(in_order, indent=2) + "\n")


def read_seconds(run_dir: Path) -> dict[str, float]:
    """Seconds of each stage that has been timed, in the order of the stages."""
    try:
        return json.loads((run_dir / FILE_NAME).read_text())
    except (FileNotFoundError, ValueError):  # no stage is timed yet, or a power cut left half a file
        return {}
