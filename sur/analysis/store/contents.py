"""The contents of a whole store: features, assets, data sets and first rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sur.cache import RowRecord, Store

if TYPE_CHECKING:
    from sur.cache import StoreSummary


@dataclass(frozen=True)
class StoreContents:
    """A store's summary, the rows of each data set, and its first rows."""

    summary: StoreSummary
    datasets: dict[str, int]
    first_rows: tuple[RowRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """Summary and data sets as plain JSON."""
        return asdict(self.summary) | {"datasets": self.datasets}


def store_contents(store: Store, first_rows: int = 0) -> StoreContents:
    """The contents of a store, with at most so many of its first rows."""
    summary = store.describe()
    datasets = {name: int(store.members(name).sum()) for name in store.datasets()}
    rows = store.rows(0)[:first_rows] if summary.n_partitions and first_rows else []
    return StoreContents(summary, datasets, tuple(rows))
