"""A store as pages show it: its features, assets, data sets, and rows spread over it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sur.analysis.store.table import FeatureColumn, State, Table
from sur.cache import Store
from sur.support.formatting import format_arrays, format_source


@dataclass(frozen=True)
class FeatureLine:
    """A feature. value, missing, pending: rows in each state. reasons: (reason, rows), the commonest first."""

    name: str
    maker: str
    arrays: str
    partitions_done: int
    rows: int
    value: int
    missing: int
    pending: int
    tokens_mean: float | None
    tokens_most: int | None
    bytes: int
    reasons: Sequence[tuple[str, int]]
    identity: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class AssetLine:
    """An asset, which belongs to no row. there: whether it is computed."""

    name: str
    maker: str
    arrays: str
    there: bool
    bytes: int


@dataclass(frozen=True)
class StoreOverview:
    """A store at one moment. outside: rows in no data set any more. reading: how much was read, "" for all of it."""

    path: str
    rows: int
    partitions: int
    rows_per_partition: int
    bytes: int
    features: Sequence[FeatureLine]
    assets: Sequence[AssetLine]
    datasets: Mapping[str, int]
    outside: int
    reading: str


def store_overview(store: Store, table: Table) -> StoreOverview:
    """The overview by the table and the assets' receipts; no values are read."""
    features = [feature_line(column) for column in table.features.values()]
    assets = [
        AssetLine(name, format_source(spec.kind, spec.identity), format_arrays(spec.arrays), store.has_asset(spec),
                  sum(array.nbytes for array in spec.arrays.values()))
        for name, spec in store.assets().items()
    ]  # fmt: skip
    inside = np.logical_or.reduce([np.zeros(table.n_rows, dtype=bool), *table.members.values()])
    reading = ""
    if table.partitions_read < table.partitions_total:
        reading = f"Reading the store: {table.partitions_read:,} of {table.partitions_total:,} partitions."
    return StoreOverview(
        path=str(store.path),
        rows=table.n_rows,
        partitions=table.partitions_total,
        rows_per_partition=store.rows_per_partition,
        bytes=sum(line.bytes for line in features) + sum(asset.bytes for asset in assets if asset.there),
        features=features,
        assets=assets,
        datasets={name: int(members.sum()) for name, members in table.members.items()},
        outside=int((~inside).sum()) if table.members else 0,
        reading=reading,
    )


def feature_line(column: FeatureColumn) -> FeatureLine:
    """The line of a feature."""
    lengths = None if column.lengths is None else column.lengths[column.lengths >= 0]
    known = lengths is not None and len(lengths) > 0
    return FeatureLine(
        name=column.spec.name,
        maker=format_source(column.spec.kind, column.spec.identity),
        arrays=format_arrays(column.spec.arrays),
        partitions_done=column.partitions_done,
        rows=len(column.states),
        value=column.count(State.VALUE),
        missing=column.count(State.MISSING),
        pending=column.count(State.PENDING),
        tokens_mean=float(lengths.mean()) if lengths is not None and known else None,
        tokens_most=int(lengths.max()) if lengths is not None and known else None,
        bytes=column.bytes_on_disk,
        reasons=Counter(column.reasons.values()).most_common(12),
        identity=identity_fields(column.spec.identity),
    )


def identity_fields(identity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields of an identity as text, by name."""
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in sorted(identity.items())]


def spread_rows(table: Table, feature: str | None, count: int) -> list[int]:
    """Numbers of rows spread evenly over those with a value of a feature (over all rows, if no feature is named)."""
    column = table.features.get(feature or "")
    places = np.arange(table.n_rows) if column is None else np.flatnonzero(column.states == State.VALUE)
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).astype(int))
    return [int(places[i]) for i in chosen]
