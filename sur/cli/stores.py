"""Commands that look into a store, or take something out of it: inspect, verify, drop."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from sur.cli.arguments import StoreArgument, console, read_config, store_path

if TYPE_CHECKING:
    from cache import RowRecord
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
    for name in opened.datasets():
        out.print(f"data set {name}: {int(opened.members(name).sum())} rows", markup=False)
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
        first.add_row(str(row.slot), row.id.hex(), *map(escape, (row.simple, row.complex, row.image)))
    out.print(first)


def verify(
    store: StoreArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend, or forget what is damaged, so that `sur extract` computes it anew.")
    ] = False,
) -> None:
    """Check every checksum and receipt; exit code 1 and the damage's names when something is wrong."""
    from cache import Store

    opened = Store.open(store_path(store), writable=repair, recover=True)
    with _progress() as progress:
        bar = progress.add_task("verify", total=opened.n_files())
        damages = opened.verify(lambda file: progress.update(bar, advance=1, description=file))
    for damage in damages:
        where = "" if damage.partition < 0 else f" partition {damage.partition}"
        typer.echo(f"{damage.feature or 'store'}{where}: {damage.file}: {damage.problem}")
    if damages:
        remedy = "`sur verify --repair` forgets what is damaged, `sur extract` then computes it anew"
        if repair:
            beyond = opened.repair(damages, _source_rows(store) if any(d.feature == "rows" for d in damages) else [])
            remedy = f"{len(damages) - len(beyond)} mended or forgotten; now `sur extract` computes the latter anew"
            if beyond:
                remedy += f". Beyond repair: {', '.join(sorted({damage.file for damage in beyond}))}. "
                remedy += "Rows are restored from their source when a config file is given in place of the store; "
                remedy += "remove files that do not belong here"
        typer.echo(f"{len(damages)} faults; {remedy}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{opened.path}: {opened.n_rows} rows, every checksum and receipt is right")


def _source_rows(argument: str) -> "list[RowRecord]":
    """Rows of the data source, if the argument is a config file."""
    if not argument.endswith((".yaml", ".yml")):
        return []
    from sur.planning import scan_rows

    return scan_rows(read_config(Path(argument), None))[0]


def drop(
    store: StoreArgument,
    name: Annotated[str, typer.Argument(help="Feature or asset, as `sur inspect` names it.", show_default=False)],
) -> None:
    """Remove a feature (or an asset) and all its values from a store; the rows and the other features stay."""
    from cache import Store

    opened = Store.open(store_path(store), writable=True)
    opened.drop_feature(name)
    typer.echo(f"{opened.path}: {name} dropped")


def compact(
    store: StoreArgument,
    target: Annotated[str, typer.Argument(help="Folder or URL of the new store.", show_default=False)],
    keep: Annotated[
        list[Path] | None, typer.Option(help="manifest.safetensors of a run whose rows are to stay. Repeatable.")
    ] = None,
) -> None:
    """Copy a store without the rows that no data set has any more and without half-empty partitions."""
    from cache import Manifest, Store
    from cache import compact as copy

    source = Store.open(store_path(store))
    made = Store.open_or_create(store_path(target), source.rows_per_partition)
    total = sum(len(source.receipts(name)) for name in source.features())
    with _progress() as progress:
        bar = progress.add_task("compact", total=total)
        left = copy(
            source, made, [Manifest.load(path) for path in keep or []],
            lambda name, partition: progress.update(bar, advance=1, description=f"{name} {partition}"),
        )  # fmt: skip
    typer.echo(
        f"{made.path}: {made.n_rows} rows in {made.n_partitions} partitions; {left} rows of {source.path}, which are "
        f"in no data set ({', '.join(source.datasets()) or 'there are none'}), left behind. "
        "Set store.path to it, and remove the old store when nothing needs it any more"
    )


def _progress() -> Progress:
    """A bar in a terminal, nothing elsewhere."""
    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _identity(feature: "FeatureSummary") -> Table:
    table = Table("field", "value", title=f"identity of {feature.name}", title_justify="left")
    for key, value in sorted(feature.identity.items()):
        table.add_row(key, escape(_short(value)))
    return table


def _short(value: Any, limit: int = 100) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "…"
