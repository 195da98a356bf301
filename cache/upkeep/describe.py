"""A summary of the contents of a store, as plain dataclasses (`dataclasses.asdict` makes JSON of it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sur.cache.contents.features import Feature
from sur.cache.format.spec import ArraySpec


@dataclass(frozen=True)
class FeatureSummary:
    """One feature or asset.

    rows_done, rows_missing: Number of rows in partitions that are done, and of those among them without a value.
    bytes_on_disk: Size of the committed files.
    stats: Counts of the receipts, summed.
    """

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
    """A whole store: its size, and a summary of each feature and asset."""

    path: str
    rows_per_partition: int
    n_partitions: int
    n_rows: int
    features: Sequence[FeatureSummary]
    assets: Sequence[FeatureSummary]


def summarize(
    path: str | Path, rows_per_partition: int, n_partitions: int, n_rows: int, features: Sequence[Feature]
) -> StoreSummary:
    """The summary of a store with these features and assets, from the receipts alone; no values are read."""
    summaries = [_summarize_feature(feature, n_partitions) for feature in features]
    return StoreSummary(
        str(path),
        rows_per_partition,
        n_partitions,
        n_rows,
        [summary for summary in summaries if summary.section == "features"],
        [summary for summary in summaries if summary.section == "assets"],
    )


def _summarize_feature(feature: Feature, n_partitions: int) -> FeatureSummary:
    spec = feature.spec
    total = n_partitions if feature.section == "features" else 1
    receipts = [feature.receipt(p) for p in range(total)]
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
