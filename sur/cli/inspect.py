"""The command that looks into a store: `sur inspect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sur.cli.arguments import StoreArgument, console, store_path

if TYPE_CHECKING:
    from PIL.Image import Image

    from sur.cache import Store

NEEDS = {  # options that say nothing but to one view
    "picture": "row", "neighbours": "row", "vae": "picture", "limit": "search", "long": "overview", "rows": "long",
}  # fmt: skip


def inspect(
    context: typer.Context,
    store: StoreArgument,
    long: Annotated[
        bool, typer.Option("--long", help="Also every array, receipts, whole identities and the first rows.")
    ] = False,
    rows: Annotated[int, typer.Option(min=0, help="Rows that --long shows.")] = 3,
    row: Annotated[
        str | None, typer.Option(metavar="ID", help="One row, by its slot, its id or the beginning of its id.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="With --row: write the picture, decoded, to this file.")] = None,
    vae: Annotated[str | None, typer.Option(help="Folder of the VAE that decodes; default: the run's own.")] = None,
    neighbours: Annotated[int, typer.Option(min=0, help="With --row: nearest rows shown for each feature.")] = 5,
    feature: Annotated[str | None, typer.Option(metavar="NAME", help="Statistics of a feature over all rows.")] = None,
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Rows whose prompts hold all these words.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows that --search shows.")] = 20,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER", help="What differs from another store; with --feature, from that feature there, or from "
            "another feature of this store."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:  # fmt: skip
    """Show what a store holds.

    All of it, a row, a feature, what a search finds, or what differs from another.
    """
    from sur.cache import Store

    if sum(option is not None for option in (row, search, diff if diff is not None else feature)) > 1:
        _refuse("--row, --search, --feature and --diff are views of their own; ask for one (or --feature with --diff)")
    view = {"row": row, "search": search, "feature": feature, "diff": diff}
    overview = None if any(asked is not None for asked in view.values()) else ""
    given = view | {"picture": picture, "overview": overview, "long": long or None}
    for option, needed in NEEDS.items():
        source = context.get_parameter_source(option)
        if given[needed] is None and source is not None and source.name == "COMMANDLINE":
            if needed == "overview":
                _refuse(f"--{option} is for the overview alone")
            _refuse(f"--{option} says nothing alone; name it with --{needed}")
    if search is not None and not search.split():
        _refuse("--search needs a word")
    opened = Store.open(store_path(store))
    if row is not None:
        _row(opened, row, picture, vae, neighbours, as_json)
    elif search is not None:
        _search(opened, search, limit, as_json)
    elif diff is not None:
        _diff(opened, diff, feature, as_json)
    elif feature is not None:
        _feature(opened, feature, as_json)
    elif as_json:
        from sur.cli.show.overview import overview_json

        _print_json(overview_json(opened))
    else:
        from sur.cli.show.overview import print_overview

        print_overview(opened, console(), long, rows)


def _row(store: "Store", key: str, picture: Path | None, vae: str | None, k: int, as_json: bool) -> None:
    from sur.analysis.store.neighbours import Neighbours
    from sur.analysis.store.pictures import LatentPictures
    from sur.analysis.store.rows import describe_row
    from sur.cli.show import store as views
    from sur.support.errors import NotInStore

    found = describe_row(store, key)
    near = {}
    for feature in found.features if k else ():
        if not feature.missing:
            near[feature.name] = Neighbours(store, feature.name, standardised=True).nearest(found.slot, k)
    said, image, absent = "", None, ""
    if picture is not None:
        try:
            pictures = LatentPictures(store, vae)
            image, said = pictures.picture(found.slot), f"{picture}: {pictures.how}"
            _save(image, picture)
        except NotInStore as error:
            absent = f"no picture: {error}"
    if as_json:
        plain = {name: [vars(each) for each in found] for name, found in near.items()}
        _print_json(found.to_json() | {"neighbours": plain, "picture": said or None, "no_picture": absent or None})
    else:
        views.print_row(store, found, near, console())
        if image is not None:
            views.print_picture(image, console())
        if said or absent:
            typer.echo(said or absent)
    if picture is not None and image is None:
        raise typer.Exit(1)


def _save(image: "Image", target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        image.save(target)
    except ValueError:
        _refuse(f"--picture {target} has no picture's ending; write .png")


def _search(store: "Store", text: str, limit: int, as_json: bool) -> None:
    from sur.analysis.store.rows import row_records
    from sur.analysis.store.search import search_rows
    from sur.cli.show import store as views

    slots = search_rows(store, text)
    rows = row_records(store, slots[:limit])
    if as_json:
        plain = [{**vars(row), "id": row.id.hex()} for row in rows]
        _print_json({"found": len(slots), "rows": plain})
        return
    views.print_rows(rows, len(slots), text, console())


def _feature(store: "Store", name: str, as_json: bool) -> None:
    from sur.analysis.store.statistics import feature_statistics
    from sur.cli.show import store as views
    from sur.support.log import log_to_stderr
    from sur.support.progress import Progress

    store.spec(name)  # said before the progress begins
    with log_to_stderr(), Progress(name, store.n_rows, "rows") as progress:
        found = feature_statistics(store, name, lambda done, _: progress.reach(done))
    if as_json:
        _print_json(found.to_json())
    else:
        views.print_statistics(found, console())


def _diff(store: "Store", other: str, feature: str | None, as_json: bool) -> None:
    from sur.analysis.store.difference import compare_features, compare_stores
    from sur.cache import Store
    from sur.cli.show import store as views

    if feature is None:
        found = compare_stores(store, Store.open(store_path(other)))
    elif other in store.features():
        found = compare_features(store, feature, store, other)
    else:
        found = compare_features(store, feature, Store.open(store_path(other)), feature)
    if as_json:
        _print_json(found.to_json())
    else:
        views.print_difference(found, console())


def _refuse(message: str) -> NoReturn:
    from sur.support.errors import ConfigError

    raise ConfigError(message)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))
