"""The state of a build between two stages: candidates in their order, and the rows left out so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sur.config.build_folder import BuildFolder
from sur.data import Quarantined
from sur.data.curation.filters import LeftOut
from sur.data.curation.sources import RowCandidate
from sur.support.errors import RowError
from sur.support.files import write_bytes
from sur.support.progress import Progress

UNREADABLE = "unreadable"
ProgressMaker = Callable[[str, int, str], Progress]  # name, total, unit


@dataclass(frozen=True)
class LeftOutRow:
    """A row that was left out, and the name of the filter under which the report counts it."""

    filter: str
    row: Quarantined


class BuildDraft:
    """Candidates that may become rows, rows that were left out, and the number of candidates that the source gave.

    passed_over: number of files that are no candidates, by their kind.
    """

    def __init__(
        self,
        candidates: Sequence[RowCandidate],
        left: Sequence[LeftOutRow],
        given: int,
        passed_over: Mapping[str, int] | None = None,
    ) -> None:
        self.candidates, self.left, self.given = tuple(candidates), tuple(left), given
        self.passed_over = dict(passed_over or {})

    def map(self, change: Callable[[RowCandidate], RowCandidate]) -> BuildDraft:
        """The draft with every candidate changed, or left out for the RowError that the change raises."""
        candidates: list[RowCandidate] = []
        left = list(self.left)
        for candidate in self.candidates:
            try:
                candidates.append(change(candidate))
            except RowError as error:
                left.append(left_out(candidate, error))
        return BuildDraft(candidates, left, self.given, self.passed_over)

    def save(self, run_dir: Path) -> Path:
        """Write the draft into a build's folder, all or nothing; returns its file."""
        content = b"".join(json.dumps(record).encode() + b"\n" for record in self._records())
        return write_bytes(BuildFolder(run_dir).draft, content, durable=True)

    @classmethod
    def read(cls, path: Path) -> BuildDraft:
        """The draft that `save` wrote to a file."""
        with open(path, encoding="ascii") as lines:
            head = json.loads(next(lines))
            candidates, left = [], []
            for record in map(json.loads, lines):
                if "candidate" in record:
                    candidates.append(RowCandidate(**record["candidate"]))
                else:
                    left.append(LeftOutRow(record["left"], Quarantined(**record["row"])))
        return cls(candidates, left, head["given"], head.get("passed_over"))

    def _records(self) -> Iterator[dict[str, Any]]:
        yield {"given": self.given, "passed_over": self.passed_over}
        yield from ({"candidate": asdict(candidate)} for candidate in self.candidates)
        yield from ({"left": entry.filter, "row": asdict(entry.row)} for entry in self.left)


def left_out(candidate: RowCandidate, error: RowError) -> LeftOutRow:
    """The report's entry of a candidate that is left out for an error."""
    row = Quarantined(candidate.position, candidate.location, error.field, error.reason, error.remedy)
    return LeftOutRow(error.filter if isinstance(error, LeftOut) else UNREADABLE, row)
