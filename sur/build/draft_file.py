"""A draft on disk, between two stages that run as tasks of their own: <run_dir>/draft.jsonl.

A line for the draft, then one for each candidate and each row left out, in their order. It is replaced whole by each
stage, read by the next one only, and goes when the rows are written: a run that was killed collects anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sur.build.draft import Draft, Left
from sur.build.rows_folder import replace_file
from sur.build.sources import Candidate
from sur.rows import Quarantined

NAME = "draft.jsonl"


def save_draft(run_dir: Path, draft: Draft) -> Path:
    """Write the draft, whole or not at all; returns its file."""

    def records() -> Iterator[dict[str, Any]]:
        yield {"given": draft.given}
        yield from ({"candidate": asdict(each)} for each in draft.candidates)
        yield from ({"left": each.filter, "row": asdict(each.row)} for each in draft.left)

    path = run_dir / NAME
    replace_file(path, b"".join(json.dumps(record).encode() + b"\n" for record in records()))
    return path


def read_draft(path: Path) -> Draft:
    """What `save_draft` wrote there."""
    with open(path, encoding="ascii") as lines:
        given = json.loads(next(lines))["given"]
        candidates, left = [], []
        for record in map(json.loads, lines):
            if "candidate" in record:
                candidates.append(Candidate(**record["candidate"]))
            else:
                left.append(Left(record["left"], Quarantined(**record["row"])))
    return Draft(candidates, left, given)
