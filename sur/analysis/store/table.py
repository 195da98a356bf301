"""The rows of a store as a table in memory, so that paging and filtering need not read the store."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from sur.analysis.store.rows import ID_PATTERN, places_of_id
from sur.cache import FeatureSpec


class State(IntEnum):
    """State of a row in a feature: not computed yet, with a value, or without one for a recorded reason."""

    PENDING = 0
    VALUE = 1
    MISSING = 2


@dataclass(frozen=True)
class FeatureColumn:
    """A feature beside the rows.

    states: the `State` of each row, uint8 (rows,). lengths: tokens of each row, int32 (rows,), -1 if not computed; None
    for a feature without tokens. reasons: of rows without a value, by row number. partitions_done, bytes_on_disk: now.
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

    number: grows with every change. ids: uint8 (rows, 16). slots: int64 (rows,). simple, complex, image, searched (both
    prompts, case folded): lists that grow with later tables, so only their first `n_rows` entries belong to this one.
    members: bool (rows,) for each data set. partitions_read, partitions_total: progress while the table fills.
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
        """Number of the row with an id in hex, or the beginning of one; None if no row fits, or several do."""
        text = row_id.lower()
        places = places_of_id(self.ids, text) if re.fullmatch(ID_PATTERN, text) else ()
        return int(places[0]) if len(places) == 1 else None

    def hex_id(self, place: int) -> str:
        """Id of a row in hex."""
        return self.ids[place].tobytes().hex()

    def place_of(self, slot: int) -> int | None:
        """Number of the row in a slot; None for a row that is not read yet."""
        place = int(np.searchsorted(self.slots, slot))
        return place if place < len(self.slots) and self.slots[place] == slot else None

    def tokens(self) -> dict[str, np.ndarray]:
        """Token lengths of the rows, by feature; features without tokens are left out."""
        return {name: column.lengths for name, column in self.features.items() if column.lengths is not None}
