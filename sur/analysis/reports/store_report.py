"""One self-contained HTML page about a store and, side by side, about runs: no server, no network."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from sur.analysis.reports.charts import FeatureCharts, feature_charts
from sur.analysis.reports.compare_runs import PROMPTS_PER_SET, different_settings, picture_lines, score_lines
from sur.analysis.reports.runs import RunRecord, read_run, run_names
from sur.analysis.reports.store_overview import spread_rows, store_overview
from sur.analysis.store.pictures import LatentPictures
from sur.analysis.store.statistics import feature_statistics
from sur.analysis.store.table import State, Table
from sur.analysis.store.watch import StoreWatch
from sur.cache import CacheError, Store
from sur.support.errors import NotInStore
from sur.support.pages import image_uri, picture_uri_if_whole, render_template, svg_uri, write_page
from sur.support.progress import Progress
from sur.training.tracking.plots import compared_names, plot_compared

STORE_REPORT = "store.html"
ROWS = 24  # rows whose pictures and prompts the page shows
_log = logging.getLogger(__name__)


def write_store_report(
    location: str | Path, folders: Sequence[Path], target: Path, statistics: bool = True, vae: str | None = None
) -> Path:
    """Write the report; returns its path. statistics: read every value of the features for their histograms.

    Raises: CacheError if there is no store, FileNotFoundError for a folder that is not a run's.
    """
    runs = [read_run(folder, name) for name, folder in zip(run_names(folders), folders, strict=True)]
    watch = StoreWatch(location)
    table = watch.refresh()
    pictures = LatentPictures(watch.store, vae=vae)
    page = render_template(
        "store-report.html.j2",
        {
            "store": store_overview(watch.store, table),
            "rows": list(_rows(table, pictures)),
            "how": _how(pictures),
            "statistics": _statistics(watch.store, table) if statistics else {},
            "loading": "",  # pictures are in the page
            "runs": runs,
            "settings": different_settings(runs),
            "scores": score_lines(runs),
            "drawn": picture_lines(runs, PROMPTS_PER_SET),
            "picture": picture_uri_if_whole,
            "plots": _plots(runs),
        },
    )
    return write_page(target, page)


def _rows(table: Table, pictures: LatentPictures) -> Iterator[dict[str, str]]:
    """Rows spread over the store; in a store with pictures, only rows that have one."""
    column = table.features.get(pictures.feature or "")
    for place in spread_rows(table, pictures.feature, ROWS):
        has_picture = column is not None and column.states[place] == State.VALUE
        yield {
            "id": table.hex_id(place),
            "simple": table.simple[place],
            "complex": table.complex[place],
            "picture": _picture(pictures, int(table.slots[place])) if has_picture else "",
        }


def _picture(pictures: LatentPictures, slot: int) -> str:
    """Address of a row's picture; "" if its latent is damaged, and the log says so."""
    try:
        return image_uri(pictures.picture(slot))
    except (CacheError, NotInStore) as error:
        _log.warning("no picture of slot %d: %s", slot, error)
        return ""


def _how(pictures: LatentPictures) -> str:
    try:
        return pictures.how
    except CacheError as error:
        return f"no pictures: {error}"


def _statistics(store: Store, table: Table) -> dict[str, FeatureCharts]:
    """Charts of every feature that has values; a damaged one is left out, and the log says so."""
    names = [name for name, column in table.features.items() if column.count(State.VALUE)]
    charts = {}
    with Progress("statistics", sum(table.features[name].count(State.VALUE) for name in names), "rows") as progress:
        before = 0
        for name in names:
            try:
                charts[name] = feature_charts(
                    feature_statistics(store, name, lambda done, _total, b=before: progress.reach(b + done))
                )
            except (CacheError, NotInStore) as error:
                _log.warning("no statistics of %s: %s", name, error)
            before += table.features[name].count(State.VALUE)
    return charts


def _plots(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    curves = {run.name: run.curves for run in runs}
    return [(name, svg_uri(plot_compared(curves, name))) for name in compared_names(curves)]
