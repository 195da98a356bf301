"""What `sur inspect` says of a whole store: a line for each feature, or with --long everything."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sur.support.formatting import arrays_of, maker_of

if TYPE_CHECKING:
    from sur.cache import Store
    from sur.cache.upkeep.describe import FeatureSummary


def print_overview(store: "Store", out: Console, long: bool, rows: int) -> None:
    """Rows, data sets and features; `long`: also every array, identity and the first `rows` rows."""
    summary = store.describe()
    out.print(
        f"{summary.path}: {summary.n_rows} rows in {summary.n_partitions} partitions "
        f"of up to {summary.rows_per_partition}",
        markup=False,
    )
    for name in store.datasets():
        out.print(f"data set {name}: {int(store.members(name).sum())} rows", markup=False)
    held = [*summary.features, *summary.assets]
    if not long:
        out.print(_lines(held))
        return
    out.print(_everything(held))
    for feature in held:
        out.print(_identity(feature))
    first = Table("slot", "id", "simple", "complex", "image", title="first rows")
    shown = store.rows(0)[:rows] if summary.n_partitions else []
    for row in shown:
        first.add_row(str(row.slot), row.id.hex(), *map(escape, (row.simple, row.complex, row.image)))
    out.print(first)


def overview_json(store: "Store") -> dict[str, Any]:
    """The same as plain JSON, whole."""
    from dataclasses import asdict

    return asdict(store.describe()) | {"datasets": {name: int(store.members(name).sum()) for name in store.datasets()}}


def _lines(held: Sequence["FeatureSummary"]) -> Table:
    """One line for each feature and asset."""
    from sur.support.formatting import format_bytes

    table = Table("name", "rows", "arrays", "bytes", "made by", box=None, pad_edge=False)
    for feature in held:
        rows = f"{feature.rows_done - feature.rows_missing}" if feature.section == "features" else ""
        if feature.partitions_done < feature.partitions_total:
            rows += f" ({feature.partitions_done} of {feature.partitions_total} partitions)"
        arrays = arrays_of(feature.arrays)
        table.add_row(
            feature.name,
            rows,
            arrays,
            format_bytes(feature.bytes_on_disk),
            escape(maker_of(feature.kind, feature.identity)),
        )
    return table


def _everything(held: Sequence["FeatureSummary"]) -> Table:
    """Every array of each feature and asset."""
    from sur.support.formatting import format_bytes

    table = Table("name", "kind", "arrays", "receipts", "rows without", "bytes")
    for feature in held:
        table.add_row(
            feature.name,
            feature.kind,
            ", ".join(f"{name} {spec.dtype}{list(spec.shape)}" for name, spec in feature.arrays.items()),
            f"{feature.partitions_done} of {feature.partitions_total}",
            str(feature.rows_missing),
            format_bytes(feature.bytes_on_disk),
        )
    return table


def _identity(feature: "FeatureSummary") -> Table:
    table = Table("field", "value", title=f"identity of {feature.name}", title_justify="left")
    for key, value in sorted(feature.identity.items()):
        table.add_row(key, escape(_short(value)))
    return table


def _short(value: Any, limit: int = 100) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "…"
