"""How far a run has come, and the seconds that each of its stages has taken so far: <run_dir>/timings.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sur.cache import CacheError

NAME = "timings.json"
STAGES = ("extract", "train", "evaluate")


@contextmanager
def timed(run_dir: Path, stage: str, reached: Callable[[], int]) -> Iterator[None]:
    """Add the seconds of the block to those of a stage if it got further, also when it is stopped.

    reached: how far the stage is; from 0 its time starts anew.
    """
    before, began = reached(), time.monotonic()
    try:
        yield
    finally:
        with suppress(CacheError, OSError):  # never in place of what ended the block
            if reached() != before:
                earlier = read_seconds(run_dir).get(stage, 0.0) if before else 0.0
                note_seconds(run_dir, stage, earlier + time.monotonic() - began)


def note_seconds(run_dir: Path, stage: str, seconds: float) -> None:
    """Write down what a stage has taken in all."""
    content = {**read_seconds(run_dir), stage: round(seconds, 1)}
    run_dir.mkdir(parents=True, exist_ok=True)
    partial = run_dir / f".{NAME}.partial"
    partial.write_text(json.dumps({name: content[name] for name in STAGES if name in content}, indent=2) + "\n")
    partial.replace(run_dir / NAME)


def read_seconds(run_dir: Path) -> dict[str, float]:
    """Seconds of each stage that has been timed, in the order of the stages."""
    path = run_dir / NAME
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # none yet, or cut short by a power cut
        return {}
