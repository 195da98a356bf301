"""Commands that look into a store, or take something out of it: inspect, verify, drop, compact."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sur.cli.arguments import StoreArgument, console, read_config, store_path
from sur.units import arrays_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache import RowRecord
    from cache.describe import FeatureSummary

WEIGHTS = ("weights", "text_encoder", "denoiser")  # fields of an identity that hold a fingerprint


def inspect(
    store: StoreArgument,
    long: Annotated[
        bool, typer.Option("--long", help="Also every array, receipts, whole identities and the first rows.")
    ] = False,
    rows: Annotated[int, typer.Option(min=0, help="Rows that --long shows.")] = 3,
) -> None:
    """Show what a store holds: a line for each feature with its rows, shapes, bytes and model."""
    from cache import Store

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
    held = [*summary.features, *summary.assets]
    if not long:
        out.print(_lines(held))
        return
    out.print(_everything(held))
    for feature in held:
        out.print(_identity(feature))
    first = Table("slot", "id", "simple", "complex", "image", title="first rows")
    shown = opened.rows(0)[:rows] if summary.n_partitions else []
    for row in shown:
        first.add_row(str(row.slot), row.id.hex(), *map(escape, (row.simple, row.complex, row.image)))
    out.print(first)


def _lines(held: "Sequence[FeatureSummary]") -> Table:
    """One line for each feature and asset."""
    from sur.units import format_bytes

    table = Table("name", "rows", "arrays", "bytes", "made by", box=None, pad_edge=False)
    for feature in held:
        rows = f"{feature.rows_done - feature.rows_missing}" if feature.section == "features" else ""
        if feature.partitions_done < feature.partitions_total:
            rows += f" ({feature.partitions_done} of {feature.partitions_total} partitions)"
        arrays = arrays_of(feature.arrays)
        table.add_row(feature.name, rows, arrays, format_bytes(feature.bytes_on_disk), escape(_maker(feature)))
    return table


def _maker(feature: "FeatureSummary") -> str:
    """The model that made a feature, the start of its weights' fingerprint, and the layer."""
    identity = feature.identity
    weights = str(next((identity[key] for key in WEIGHTS if identity.get(key)), ""))[:8]
    layer = f"layer {identity['layer']}" if "layer" in identity else ""
    return " ".join(filter(None, (identity.get("model", feature.kind), weights, layer)))


def _everything(held: "Sequence[FeatureSummary]") -> Table:
    """Every array of each feature and asset."""
    from sur.units import format_bytes

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


def verify(
    store: StoreArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend, or forget what is damaged, so that `sur extract` computes it anew.")
    ] = False,
) -> None:
    """Check every checksum and receipt; exit code 1 when something is wrong and, with --repair, beyond it."""
    from cache import Store
    from sur.log import log_to_stderr
    from sur.progress import Progress

    opened = Store.open(store_path(store), writable=repair, recover=True)
    with log_to_stderr(), Progress("verify", opened.n_files(), "files") as progress:
        damages = opened.verify(lambda file: progress.advance(1, file))
    for damage in damages:
        where = "" if damage.partition < 0 else f" partition {damage.partition}"
        typer.echo(f"{damage.feature or 'store'}{where}: {damage.file}: {damage.problem}")
    if not damages:
        typer.echo(f"{opened.path}: {opened.n_rows} rows, every checksum and receipt is right")
        return
    beyond = damages
    remedy = "`sur verify --repair` forgets what is damaged, `sur extract` then computes it anew"
    if repair:
        beyond = opened.repair(damages, _source_rows(store) if any(d.feature == "rows" for d in damages) else [])
        remedy = (
            f"{len(damages) - len(beyond)} mended or forgotten; now run `sur extract`, which computes anew what was"
        )
        if beyond:
            remedy += f". Beyond repair: {', '.join(sorted({damage.file for damage in beyond}))}. "
            remedy += "Rows are restored from their source when a config file is given in place of the store; "
            remedy += "remove files that do not belong here"
    typer.echo(f"{len(damages)} fault{'' if len(damages) == 1 else 's'}; {remedy}", err=True)
    if beyond:
        raise typer.Exit(1)


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
    from sur.log import log_to_stderr
    from sur.progress import Progress

    source = Store.open(store_path(store))
    made = Store.open_or_create(store_path(target), source.rows_per_partition)
    total = sum(len(source.receipts(name)) for name in source.features())
    with log_to_stderr(), Progress("compact", total, "partitions") as progress:
        left = copy(
            source, made, [Manifest.load(path) for path in keep or []],
            lambda name, partition: progress.advance(1, f"{name} {partition}"),
        )  # fmt: skip
    typer.echo(
        f"{made.path}: {made.n_rows} rows in {made.n_partitions} partitions; {left} rows of {source.path}, which are "
        f"in no data set ({', '.join(source.datasets()) or 'there are none'}), left behind. "
        "Set store.path to it, and remove the old store when nothing needs it any more"
    )


def _identity(feature: "FeatureSummary") -> Table:
    table = Table("field", "value", title=f"identity of {feature.name}", title_justify="left")
    for key, value in sorted(feature.identity.items()):
        table.add_row(key, escape(_short(value)))
    return table


def _short(value: Any, limit: int = 100) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "…"
