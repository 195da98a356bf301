"""A summary of what a store holds, as plain dataclasses (`dataclasses.asdict` gives JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.features import Feature
from cache.records import ArraySpec

if TYPE_CHECKING:
    from cache.store import Store


@dataclass(frozen=True)
class FeatureSummary:
    """One feature or asset. `rows_done` are the rows of done partitions, of which `rows_missing` have no value;
    `bytes_on_disk` counts committed files; `stats` are summed over receipts."""

    name: str
    section: str
    kind: str
    identity: Mapping[str, Any]
    arrays: Mapping[str, ArraySpec]
    partitions_done: int
    partitions_total: int
    rows_done: int
    rows_missing: int
    bytes_on_disk: int
    stats: Mapping[str, int]


@dataclass(frozen=True)
class StoreSummary:
    """A whole store."""

    path: str
    rows_per_partition: int
    n_partitions: int
    n_rows: int
    features: Sequence[FeatureSummary]
    assets: Sequence[FeatureSummary]


def summarize(store: Store, features: Sequence[Feature]) -> StoreSummary:
    """Summary from receipts alone; no values are read."""
    found = [_summarize_feature(store, feature) for feature in features]
    return StoreSummary(
        str(store.path),
        store.rows_per_partition,
        store.n_partitions,
        store.n_rows,
        [summary for summary in found if summary.section == "features"],
        [summary for summary in found if summary.section == "assets"],
    )


def _summarize_feature(store: Store, feature: Feature) -> FeatureSummary:
    spec, rows = feature.spec, feature.section == "features"
    total = store.n_partitions if rows else 1
    receipts = [store.receipt(spec.name, p) if rows else feature.receipt(p) for p in range(total)]
    done = [receipt for receipt in receipts if receipt is not None]
    stats: dict[str, int] = {}
    for receipt in done:
        for key, value in receipt.stats.items():
            stats[key] = stats.get(key, 0) + value
    return FeatureSummary(
        name=spec.name,
        section=feature.section,
        kind=spec.kind,
        identity=spec.identity,
        arrays=spec.arrays,
        partitions_done=len(done),
        partitions_total=total,
        rows_done=sum(receipt.rows for receipt in done),
        rows_missing=sum(len(receipt.missing) for receipt in done),
        bytes_on_disk=sum(shard.bytes for receipt in done for shard in receipt.shards.values()),
        stats=stats,
    )
