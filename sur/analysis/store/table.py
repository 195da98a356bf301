"""The rows of a store as a table in memory, so that no request has to read the store for paging or filtering."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from sur.analysis.store.rows import ID_PATTERN, places_of_id
from sur.cache import FeatureSpec


class State(IntEnum):
    """What a row has of a feature: not computed yet, a value, or none for a reason that is recorded."""

    PENDING = 0
    VALUE = 1
    MISSING = 2


@dataclass(frozen=True)
class FeatureColumn:
    """A feature beside the rows.

    states: a `State` a row, uint8 (rows,). lengths: tokens of a row, int32 (rows,), -1 where there is none yet; None
    for a feature without lengths. reasons: why rows have no value, by place. partitions_done, bytes_on_disk: so far.
    """

    spec: FeatureSpec
    states: np.ndarray
    lengths: np.ndarray | None
    reasons: Mapping[int, str]
    partitions_done: int
    bytes_on_disk: int

    def count(self, state: State) -> int:
        """Rows in a state."""
        return int((self.states == state).sum())


@dataclass(frozen=True)
class Table:
    """All rows at one moment; row number i is the i-th filled slot, and never changes while the store grows.

    ids: uint8 (rows, 16). slots: int64 (rows,). simple, complex, image, searched (both prompts, case folded): lists
    that grow with later tables, so only their first `n_rows` belong to this one. members: bool (rows,) a data set.
    partitions_read, partitions_total: fewer are read than there are while the table fills.
    """

    number: int
    ids: np.ndarray
    slots: np.ndarray
    simple: Sequence[str]
    complex: Sequence[str]
    image: Sequence[str]
    searched: Sequence[str]
    features: Mapping[str, FeatureColumn]
    members: Mapping[str, np.ndarray]
    partitions_read: int
    partitions_total: int

    @property
    def n_rows(self) -> int:
        """Rows in the table."""
        return len(self.ids)

    def find(self, row_id: str) -> int | None:
        """Number of the row with an id in hex, or whose id alone begins so; None if there is no such row."""
        text = row_id.lower()
        found = places_of_id(self.ids, text) if re.fullmatch(ID_PATTERN, text) else ()
        return int(found[0]) if len(found) == 1 else None

    def hex_id(self, place: int) -> str:
        """Id of a row as people read it."""
        return self.ids[place].tobytes().hex()

    def place_of(self, slot: int) -> int | None:
        """Number of the row in a slot; None for a row that is not read yet."""
        place = int(np.searchsorted(self.slots, slot))
        return place if place < len(self.slots) and self.slots[place] == slot else None

    def tokens(self) -> dict[str, np.ndarray]:
        """Lengths by the features that have them."""
        return {name: column.lengths for name, column in self.features.items() if column.lengths is not None}
