"""Which rows a page of the list shows, as asked for in its address."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Literal
from urllib.parse import urlencode

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sur.analysis.store.search import holding
from sur.analysis.store.table import State, Table

PAGE_ROWS = 48
NO_DATASET = "-"  # the choice of rows that no data set has any more; no data set can be called so
_STATES = {"missing": State.MISSING, "pending": State.PENDING, "value": State.VALUE}


class RowFilter(BaseModel):
    """The list's settings. An empty string is no condition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    q: str = Field(default="", max_length=500, description="words, all of which a row's prompts hold")
    dataset: str = Field(default="", description='rows of this data set; "-": of none')
    feature: str = Field(default="", description="feature that `state` and the token lengths are about")
    state: Literal["", "value", "missing", "pending"] = Field(default="", description="what rows have of the feature")
    low: int | None = Field(default=None, ge=0, description="fewest tokens of the feature")
    high: int | None = Field(default=None, ge=0, description="most tokens of the feature")
    order: Literal["slot", "longest", "shortest"] = Field(default="slot", description="longest: most tokens first")
    offset: int = Field(default=0, ge=0, description="rows before the page's first")

    @field_validator("low", "high", mode="before")
    @classmethod
    def _left_empty(cls, value: object) -> object:
        return None if value == "" else value

    def query(self, **changes: object) -> str:
        """As the part of an address behind the question mark, with some settings changed; defaults are left out."""
        return urlencode(self.model_copy(update=changes).model_dump(exclude_defaults=True))

    @property
    def about_tokens(self) -> bool:
        """Whether it asks for token lengths."""
        return self.low is not None or self.high is not None or self.order != "slot"

    @property
    def conditions(self) -> int:
        """How many conditions are set."""
        return len(self.model_dump(exclude_defaults=True, exclude={"offset", "order", "feature"}))


def matching(table: Table, wanted: RowFilter) -> np.ndarray:
    """Numbers of the rows that pass, in the order asked for, int64 (n,).

    A data set or feature that the store does not hold has no rows.
    """
    passed = np.ones(table.n_rows, dtype=bool)
    none = np.zeros(table.n_rows, dtype=bool)
    if wanted.dataset == NO_DATASET:
        passed &= ~np.logical_or.reduce([none, *table.members.values()])
    elif wanted.dataset:
        passed &= table.members.get(wanted.dataset, none)
    column = table.features.get(wanted.feature)
    if wanted.feature and column is None:
        passed = none
    if column is not None and wanted.state:
        passed &= column.states == _STATES[wanted.state]
    elif wanted.state:  # of any feature
        passed &= np.logical_or.reduce([none, *(c.states == _STATES[wanted.state] for c in table.features.values())])
    lengths = None if column is None else column.lengths
    if wanted.low is not None or wanted.high is not None:
        low, high = wanted.low or 0, 2**31 - 1 if wanted.high is None else wanted.high
        passed &= none if lengths is None else (lengths >= low) & (lengths <= high)
    places = np.flatnonzero(passed)
    if words := wanted.q.casefold().split():
        places = np.array(holding(table.searched, places.tolist(), words), dtype=np.int64)
    if wanted.order != "slot" and lengths is not None:
        known = lengths[places]
        places = places[np.argsort(-known if wanted.order == "longest" else known, kind="stable")]
    return places


class Found:
    """The latest answers of `matching`, so that turning pages does not search again."""

    def __init__(self, size: int = 32) -> None:
        self._size = size
        self._answers: OrderedDict[tuple[int, RowFilter], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def __call__(self, table: Table, wanted: RowFilter) -> np.ndarray:
        """`matching`, remembered as long as the table stays the same."""
        key = (table.number, wanted.model_copy(update={"offset": 0}))
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        places = matching(table, wanted)
        with self._lock:
            self._answers[key] = places
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return places
