"""Commands that check a store or remove a part of it: verify, drop, compact."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sur.cli.arguments import StoreArgument, run_config, say, store_path

if TYPE_CHECKING:
    from sur.cache import RowRecord


def verify(
    store: StoreArgument,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Mend what is damaged, or remove it, so that `sur extract` computes it anew."),
    ] = False,
) -> None:
    """Check every checksum and receipt of a store.

    Exit code 1 when something is wrong and, with --repair, cannot be repaired.
    """
    from sur.cache import Store
    from sur.support.log import log_to_stderr
    from sur.support.progress import Progress

    opened = Store.open(store_path(store), writable=repair, recover=True)
    with log_to_stderr(), Progress("verify", opened.n_files(), "files") as progress:
        damages = opened.verify(lambda file: progress.advance(1, file))
    for damage in damages:
        where = "" if damage.partition < 0 else f" partition {damage.partition}"
        say(f"{damage.feature or 'store'}{where}: {damage.file}: {damage.problem}")
    if not damages:
        say(f"{opened.path}: {opened.n_rows} rows, every checksum and receipt is right")
        return
    left = damages
    remedy = "`sur verify --repair` forgets what is damaged, `sur extract` then computes it anew"
    if repair:
        left = opened.repair(damages, _source_rows(store) if any(d.feature == "rows" for d in damages) else [])
        remedy = f"{len(damages) - len(left)} mended or forgotten; now run `sur extract`, which computes anew what was"
        if left:
            faults = sorted({f"{damage.file} ({damage.problem})" for damage in left})
            remedy += f". Beyond repair: {', '.join(faults)}. "
            remedy += "Rows are restored from their source when the run's config file is given in place of the store; "
            remedy += "remove files that do not belong here"
    say(f"{len(damages)} fault{'' if len(damages) == 1 else 's'}; {remedy}", err=True)
    if left:
        raise typer.Exit(1)


def _source_rows(argument: str) -> "list[RowRecord]":
    """Rows of the data source of a config file or run folder; none for any other argument."""
    if (config := run_config(argument)) is None:
        return []
    from sur.data import scan_rows

    return scan_rows(config.data, need_image=config.vae is not None)[0]


def drop(
    store: StoreArgument,
    name: Annotated[
        str, typer.Argument(help="Name of the feature, asset or data set, as in `sur inspect`.", show_default=False)
    ],
) -> None:
    """Remove a feature, an asset or a data set from a store.

    All its values go; the rows and the other features stay.
    """
    from sur.cache import Store

    opened = Store.open(store_path(store), writable=True)
    opened.drop_feature(name)
    say(f"{opened.path}: {name} dropped")


def compact(
    store: StoreArgument,
    target: Annotated[str, typer.Argument(help="Folder or URL of the new store.", show_default=False)],
    keep: Annotated[
        list[Path] | None, typer.Option(help="A run's manifest.safetensors whose rows are to stay; repeatable.")
    ] = None,
) -> None:
    """Copy a store without what no data set has any more.

    Rows in no data set and half-empty partitions are left behind.
    """
    from sur.cache import Manifest, Store, store_location
    from sur.cache import compact as copy
    from sur.cache.compact import require_apart
    from sur.support.log import log_to_stderr
    from sur.support.progress import Progress

    source = Store.open(store_path(store))
    require_apart(source.path, store_location(target))  # before anything is made there
    compacted = Store.open_or_create(store_location(target), source.rows_per_partition)
    total = sum(len(source.receipts(name)) for name in source.features())
    with log_to_stderr(), Progress("compact", total, "partitions") as progress:
        left = copy(
            source, compacted, [Manifest.load(path) for path in keep or []],
            lambda name, partition: progress.advance(1, f"{name} {partition}"),
        )  # fmt: skip
    pending = {name: len(compacted.pending(name)) for name in compacted.features()}
    if unfinished := [f"{name} ({count})" for name, count in pending.items() if count]:
        say(
            f"{source.path} lacks partitions of {', '.join(unfinished)}: `sur extract` computes them in the new store",
            err=True,
        )
    say(
        f"{compacted.path}: {compacted.n_rows} rows in {compacted.n_partitions} partitions; {left} rows of "
        f"{source.path}, which are in no data set ({', '.join(source.datasets()) or 'there are none'}), left behind. "
        "Set store.path to it, and remove the old store when nothing needs it any more"
    )
