"""Progress of a flow: the bar of `sur.support.progress` and a progress artifact in Prefect."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from sur.support.progress import Progress

ARTIFACT_SECONDS = 2.0  # at most one update of the artifact in this time


def flow_progress(name: str, total: int, unit: str) -> Progress:
    """A progress bar for the user that also keeps an artifact in Prefect up to date."""
    return Progress(name, total, unit, _artifact(name, total) if total else None)


def _artifact(name: str, total: int) -> Callable[[int], None]:
    """A function that writes the number of units done to a new progress artifact."""
    key = re.sub(r"[^a-z0-9]+", "-", f"progress-{name}".lower())
    artifact = create_progress_artifact(0.0, key=key, description=name)
    updated = time.monotonic()

    def update(done: int) -> None:
        nonlocal updated
        now = time.monotonic()
        if done >= total or now - updated >= ARTIFACT_SECONDS:
            updated = now
            update_progress_artifact(artifact, progress=100.0 * min(1.0, done / total))  # pyright: ignore[reportArgumentType]

    return update
