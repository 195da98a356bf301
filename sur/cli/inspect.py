"""The command that looks into a store: `sur inspect`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sur.cli.arguments import StoreArgument, console, say, store_path

if TYPE_CHECKING:
    from PIL.Image import Image

    from sur.cache import Store

NEEDS = {  # options that only one view uses, and the option that chooses this view
    "picture": "row", "neighbours": "row", "vae": "picture", "limit": "search", "long": "overview", "rows": "long",
}  # fmt: skip


def inspect(
    context: typer.Context,
    store: StoreArgument,
    long: Annotated[
        bool, typer.Option("--long", help="Also show every array, receipts, whole identities and the first rows.")
    ] = False,
    rows: Annotated[int, typer.Option(min=0, help="First rows that --long shows.")] = 3,
    row: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Show one row, named by its slot, its id or the beginning of its id."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="With --row: file to write the row's decoded picture to.")
    ] = None,
    vae: Annotated[
        str | None,
        typer.Option(help="With --picture: folder of the VAE that decodes (default: the run's)."),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(min=0, help="With --row: nearest rows to show for each feature; 0 reads this row alone.")
    ] = 5,
    feature: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show statistics of a feature over all rows.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Show rows whose prompts hold all of these words.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="With --search: rows to show, at most.")] = 20,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER",
            help="Show the differences from another store; with --feature, from that feature there or from another "
            "feature of this store.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show what a store holds.

    All of it, a row, a feature, what a search finds, or what differs from another.
    """
    from sur.cache import Store

    if sum(option is not None for option in (row, search, diff if diff is not None else feature)) > 1:
        _refuse("--row, --search, --feature and --diff are views of their own; ask for one (or --feature with --diff)")
    views = {"row": row, "search": search, "feature": feature, "diff": diff}
    overview = None if any(value is not None for value in views.values()) else ""
    _refuse_unused(context, views | {"picture": picture, "overview": overview, "long": long or None})
    if search is not None and not search.split():
        _refuse("--search needs a word")
    opened = Store.open(store_path(store))
    if row is not None:
        _show_row(opened, row, picture, vae, neighbours, as_json)
    elif search is not None:
        _show_search(opened, search, limit, as_json)
    elif diff is not None:
        _show_difference(opened, diff, feature, as_json)
    elif feature is not None:
        _show_feature(opened, feature, as_json)
    else:
        _show_contents(opened, long, rows, as_json)


def _refuse_unused(context: typer.Context, values: dict[str, Any]) -> None:
    """Refuse options on the command line whose view is not asked for."""
    for option, needed in NEEDS.items():
        source = context.get_parameter_source(option)
        if values[needed] is None and source is not None and source.name == "COMMANDLINE":
            if needed == "overview":
                _refuse(f"--{option} is for the overview alone")
            _refuse(f"--{option} says nothing alone; name it with --{needed}")


def _show_contents(store: "Store", long: bool, rows: int, as_json: bool) -> None:
    from sur.analysis.store.contents import store_contents
    from sur.cli.show.overview import print_contents

    contents = store_contents(store, rows if long and not as_json else 0)
    if as_json:
        _print_json(contents.to_json())
    else:
        print_contents(contents, console(), long)


def _show_row(store: "Store", key: str, picture: Path | None, vae: str | None, neighbours: int, as_json: bool) -> None:
    from sur.analysis.store.pictures import LatentPictures
    from sur.analysis.store.rows import describe_row
    from sur.cli.show.store import print_picture, print_row
    from sur.support.errors import NotInStore

    report = describe_row(store, key, neighbours)
    written, image, absent = "", None, ""
    if picture is not None:
        try:
            pictures = LatentPictures(store, vae)
            image, written = pictures.picture(report.slot), f"{picture}: {pictures.how}"
            _save(image, picture)
        except NotInStore as error:
            absent = f"no picture: {error}"
    if as_json:
        _print_json(report.to_json() | {"picture": written or None, "no_picture": absent or None})
    else:
        print_row(report, console())
        if image is not None:
            print_picture(image, console())
        if written or absent:
            say(written or absent)
    if picture is not None and image is None:
        raise typer.Exit(1)


def _save(image: "Image", target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        image.save(target)
    except ValueError:
        _refuse(f"--picture {target} has no picture's ending; write .png")


def _show_search(store: "Store", text: str, limit: int, as_json: bool) -> None:
    from sur.analysis.store.rows import row_records
    from sur.analysis.store.search import PromptSearch
    from sur.cli.show.store import print_rows

    slots = PromptSearch(store).find(text)
    rows = row_records(store, slots[:limit])
    if as_json:
        _print_json({"found": len(slots), "rows": [{**vars(row), "id": row.id.hex()} for row in rows]})
    else:
        print_rows(rows, len(slots), text, console())


def _show_feature(store: "Store", name: str, as_json: bool) -> None:
    from sur.analysis.store.statistics import feature_statistics
    from sur.cli.show.store import print_statistics
    from sur.support.log import log_to_stderr
    from sur.support.progress import Progress

    store.spec(name)  # an unknown name is refused before the progress begins
    with log_to_stderr(), Progress(name, store.n_rows, "rows") as progress:
        statistics = feature_statistics(store, name, lambda done, _: progress.reach(done))
    if as_json:
        _print_json(statistics.to_json())
    else:
        print_statistics(statistics, console())


def _show_difference(store: "Store", other: str, feature: str | None, as_json: bool) -> None:
    from sur.analysis.store.difference import compare_features, compare_stores
    from sur.cache import Store
    from sur.cli.show.store import print_difference

    if feature is None:
        difference = compare_stores(store, Store.open(store_path(other)))
    elif other in store.features():
        difference = compare_features(store, feature, store, other)
    else:
        difference = compare_features(store, feature, Store.open(store_path(other)), feature)
    if as_json:
        _print_json(difference.to_json())
    else:
        print_difference(difference, console())


def _refuse(message: str) -> NoReturn:
    from sur.support.errors import ConfigError

    raise ConfigError(message)


def _print_json(value: Any) -> None:
    say(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))
