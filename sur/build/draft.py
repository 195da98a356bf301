"""What a build has so far: candidates in their order, and those left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sur.build.filters import LeftOut
from sur.build.sources import Candidate
from sur.progress import Progress
from sur.rows import Quarantined, RowError

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
