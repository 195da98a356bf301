"""How the contents of a whole store look in a terminal: a line for each feature, or with --long everything."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sur.support.formatting import format_arrays, format_bytes, format_source
from sur.support.terminal import PlainConsole

if TYPE_CHECKING:
    from sur.analysis.store.contents import StoreContents
    from sur.cache import FeatureSummary

MOST_CHARACTERS = 100  # of an identity's value


def print_contents(contents: "StoreContents", out: PlainConsole, long: bool) -> None:
    """Print rows, data sets and features; `long`: also every array, every identity and the first rows."""
    summary = contents.summary
    out.print(
        f"{summary.path}: {summary.n_rows} rows in {summary.n_partitions} partitions "
        f"of up to {summary.rows_per_partition}"
    )
    for name, rows in contents.datasets.items():
        out.print(f"data set {name}: {rows} rows")
    features = [*summary.features, *summary.assets]
    if not long:
        out.print(_short_table(features))
        return
    out.print(_long_table(features))
    for feature in features:
        out.print(_identity_table(feature))
    first = Table("slot", "id", "simple", "complex", "image", title="first rows")
    for row in contents.first_rows:
        first.add_row(str(row.slot), row.id.hex(), row.simple, row.complex, row.image)
    out.print(first)


def _short_table(features: Sequence["FeatureSummary"]) -> Table:
    """One line for each feature and asset."""
    table = Table("name", "rows", "arrays", "bytes", "made by", box=None, pad_edge=False)
    for feature in features:
        rows = f"{feature.rows_done - feature.rows_missing}" if feature.section == "features" else ""
        if feature.partitions_done < feature.partitions_total:
            rows += f" ({feature.partitions_done} of {feature.partitions_total} partitions)"
        table.add_row(
            feature.name,
            rows,
            format_arrays(feature.arrays),
            format_bytes(feature.bytes_on_disk),
            format_source(feature.kind, feature.identity),
        )
    return table


def _long_table(features: Sequence["FeatureSummary"]) -> Table:
    """Every array of each feature and asset."""
    table = Table("name", "kind", "arrays", "receipts", "rows without", "bytes")
    for feature in features:
        table.add_row(
            feature.name,
            feature.kind,
            ", ".join(f"{name} {spec.dtype}{list(spec.shape)}" for name, spec in feature.arrays.items()),
            f"{feature.partitions_done} of {feature.partitions_total}",
            str(feature.rows_missing),
            format_bytes(feature.bytes_on_disk),
        )
    return table


def _identity_table(feature: "FeatureSummary") -> Table:
    table = Table("field", "value", title=f"identity of {feature.name}", title_justify="left")
    for key, value in sorted(feature.identity.items()):
        table.add_row(key, _shortened(value))
    return table


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"
