"""Commands that look into a store: inspect and verify."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sur.cli.arguments import StoreArgument, console, store_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache import Damage, Store
    from cache.describe import FeatureSummary


def inspect(
    store: StoreArgument,
    rows: Annotated[int, typer.Option(help="Rows to show.")] = 3,
) -> None:
    """Show what a store holds: features, shapes, bytes, receipts, identities, first rows."""
    from cache import Store
    from sur.planning import format_bytes

    opened = Store.open(store_path(store))
    summary = opened.describe()
    out = console()
    out.print(
        f"{summary.path}: {summary.n_rows} rows in {summary.n_partitions} partitions "
        f"of up to {summary.rows_per_partition}",
        markup=False,
    )
    table = Table("name", "kind", "arrays", "receipts", "rows without", "bytes")
    held = [*summary.features, *summary.assets]
    for feature in held:
        table.add_row(
            feature.name,
            feature.kind,
            ", ".join(f"{name} {spec.dtype}{list(spec.shape)}" for name, spec in feature.arrays.items()),
            f"{feature.partitions_done} of {feature.partitions_total}",
            str(feature.rows_missing),
            format_bytes(feature.bytes_on_disk),
        )
    out.print(table)
    for feature in held:
        out.print(_identity(feature))
    first = Table("slot", "id", "simple", "complex", "image", title="first rows")
    shown = opened.rows(0)[:rows] if summary.n_partitions else []
    for row in shown:
        first.add_row(str(row.slot), row.id.hex(), row.simple, row.complex, row.image)
    out.print(first)


def verify(
    store: StoreArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Forget damaged partitions, so that `sur extract` computes them anew.")
    ] = False,
) -> None:
    """Check every checksum and receipt; exit code 1 and the damage's names when something is wrong."""
    from cache import Store

    opened = Store.open(store_path(store), writable=repair)
    damages = opened.verify()
    for damage in damages:
        typer.echo(f"{damage.feature} partition {damage.partition}: {damage.file}: {damage.problem}")
    if damages:
        forgotten = _forget(opened, damages) if repair else 0
        remedy = "now `sur extract` computes them anew" if repair else "`sur verify --repair` forgets what is damaged"
        typer.echo(f"{len(damages)} faults, {forgotten} partitions forgotten; {remedy}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{opened.path}: {opened.n_rows} rows, every checksum and receipt is right")


def _forget(store: "Store", damages: "Sequence[Damage]") -> int:
    """Forget the receipts of the damaged partitions of features; returns how many there are."""
    known = store.features()
    partitions = {(damage.feature, damage.partition) for damage in damages if damage.feature in known}
    partitions = {(feature, partition) for feature, partition in partitions if partition >= 0}
    for feature, partition in sorted(partitions):
        store.discard(feature, partition)
    return len(partitions)


def _identity(feature: "FeatureSummary") -> Table:
    table = Table("field", "value", title=f"identity of {feature.name}", title_justify="left")
    for key, value in sorted(feature.identity.items()):
        table.add_row(key, _short(value))
    return table


def _short(value: Any, limit: int = 100) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "…"
