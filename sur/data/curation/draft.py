"""What a build has so far: candidates in their order, and those left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sur.data import Quarantined
from sur.data.curation.filters import LeftOut
from sur.data.curation.sources import Candidate
from sur.support.errors import RowError
from sur.support.files import write_bytes
from sur.support.progress import Progress

UNREADABLE = "unreadable"
ProgressMaker = Callable[[str, int, str], Progress]  # name, total, unit


@dataclass(frozen=True)
class Left:
    """A row that was left out, under the name that the report counts it by."""

    filter: str
    row: Quarantined


class Draft:
    """Candidates that may become rows, and those that will not."""

    def __init__(self, candidates: Sequence[Candidate], left: Sequence[Left], given: int) -> None:
        self.candidates, self.left, self.given = tuple(candidates), tuple(left), given

    def each(self, change: Callable[[Candidate], Candidate]) -> Draft:
        """Every candidate changed, or left out for the RowError that the change raises."""
        kept: list[Candidate] = []
        left = list(self.left)
        for candidate in self.candidates:
            try:
                kept.append(change(candidate))
            except RowError as error:
                left.append(left_out(candidate, error))
        return Draft(kept, left, self.given)


def left_out(candidate: Candidate, error: RowError) -> Left:
    """The report's entry of a candidate."""
    row = Quarantined(candidate.position, candidate.location, error.field, error.reason, error.remedy)
    return Left(error.filter if isinstance(error, LeftOut) else UNREADABLE, row)


NAME = "draft.jsonl"


def save_draft(run_dir: Path, draft: Draft) -> Path:
    """Write the draft, whole or not at all; returns its file."""

    def records() -> Iterator[dict[str, Any]]:
        yield {"given": draft.given}
        yield from ({"candidate": asdict(each)} for each in draft.candidates)
        yield from ({"left": each.filter, "row": asdict(each.row)} for each in draft.left)

    path = run_dir / NAME
    write_bytes(path, b"".join(json.dumps(record).encode() + b"\n" for record in records()), durable=True)
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
