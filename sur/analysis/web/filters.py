"""The filter of the list of rows, as an address has it, and the rows that pass it."""

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
    """Conditions and order of the list. An empty string is no condition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    q: str = Field(default="", max_length=500, description="Words, all of which a row's prompts hold.")
    dataset: str = Field(default="", description='Data set whose rows are shown; "-": rows of no data set.')
    feature: str = Field(default="", description="Feature of `state` and of the token lengths.")
    state: Literal["", "value", "missing", "pending"] = Field(
        default="", description="State of the rows in the feature."
    )
    low: int | None = Field(default=None, ge=0, description="Least number of tokens.")
    high: int | None = Field(default=None, ge=0, description="Greatest number of tokens.")
    order: Literal["slot", "longest", "shortest"] = Field(
        default="slot", description="Order of the rows; longest: most tokens first."
    )
    offset: int = Field(default=0, ge=0, description="Rows before the first of the page.")

    @field_validator("low", "high", mode="before")
    @classmethod
    def _left_empty(cls, value: object) -> object:
        return None if value == "" else value

    def query(self, **changes: object) -> str:
        """The query part of an address, with some settings changed; defaults are left out."""
        return urlencode(self.model_copy(update=changes).model_dump(exclude_defaults=True))

    @property
    def about_tokens(self) -> bool:
        """Whether the filter needs token lengths."""
        return self.low is not None or self.high is not None or self.order != "slot"

    @property
    def conditions(self) -> int:
        """Number of conditions that are set."""
        return len(self.model_dump(exclude_defaults=True, exclude={"offset", "order", "feature"}))


def matching(table: Table, filters: RowFilter) -> np.ndarray:
    """Numbers of the rows that pass the filter, in its order, int64 (n,).

    A data set or feature that the store does not hold has no rows.
    """
    passed = np.ones(table.n_rows, dtype=bool)
    none = np.zeros(table.n_rows, dtype=bool)
    if filters.dataset == NO_DATASET:
        passed &= ~np.logical_or.reduce([none, *table.members.values()])
    elif filters.dataset:
        passed &= table.members.get(filters.dataset, none)
    column = table.features.get(filters.feature)
    if filters.feature and column is None:
        passed = none
    if column is not None and filters.state:
        passed &= column.states == _STATES[filters.state]
    elif filters.state:  # of any feature
        passed &= np.logical_or.reduce([none, *(c.states == _STATES[filters.state] for c in table.features.values())])
    lengths = None if column is None else column.lengths
    if filters.low is not None or filters.high is not None:
        low, high = filters.low or 0, 2**31 - 1 if filters.high is None else filters.high
        passed &= none if lengths is None else (lengths >= low) & (lengths <= high)
    places = np.flatnonzero(passed)
    if words := filters.q.casefold().split():
        places = np.array(holding(table.searched, places.tolist(), words), dtype=np.int64)
    if filters.order != "slot" and lengths is not None:
        known = lengths[places]
        places = places[np.argsort(-known if filters.order == "longest" else known, kind="stable")]
    return places


class MatchCache:
    """The latest results of `matching`, so that turning pages does not search again."""

    def __init__(self, size: int = 32) -> None:
        self._size = size
        self._results: OrderedDict[tuple[int, RowFilter], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def __call__(self, table: Table, filters: RowFilter) -> np.ndarray:
        """The result of `matching`, kept as long as the table stays the same."""
        key = (table.number, filters.model_copy(update={"offset": 0}))
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        places = matching(table, filters)
        with self._lock:
            self._results[key] = places
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        return places
