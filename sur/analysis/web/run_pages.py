"""Pages of runs: side by side, their plots and pictures, each one's own report, and the rows they quarantined."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response

from sur.analysis.reports.compare_runs import different_settings, picture_lines, score_lines
from sur.analysis.reports.runs import RunRecord, read_run, stamp
from sur.analysis.web.pages import TheViewer, page
from sur.analysis.web.security import REPORT_POLICY
from sur.analysis.web.store_pages import LARGE
from sur.analysis.web.viewer import Viewer
from sur.support.images import ImageError, decode, encode
from sur.training.tracking.plots import compared_names, plot_compared

PROMPTS = 6  # of each set
router = APIRouter()
_plotting = Lock()  # matplotlib draws for one thread at a time


@router.get("/runs")
def runs(request: Request, viewer: TheViewer) -> HTMLResponse:
    """All runs side by side."""
    found = viewer.runs()
    addresses = dict(_drawn(found))
    return page(
        request,
        "runs",
        runs=found,
        settings=different_settings(found),
        plots=[
            (name, f"/runs/plot?name={quote(name, safe='')}&at={_at(found)}")
            for name in compared_names({run.name: run.curves for run in found})
        ],
        scores=score_lines(found),
        drawn=picture_lines(found, PROMPTS),
        picture=addresses.__getitem__,
    )


@router.get("/runs/plot")
def plot(viewer: TheViewer, name: str, at: str = "") -> Response:
    """One recorded number of all runs over their steps. `at` only makes addresses differ."""
    found = viewer.runs()
    if name not in compared_names({run.name: run.curves for run in found}):
        raise HTTPException(404, f"no run recorded {name}")
    with _plotting:
        drawn = _plot(tuple((run.name, run.path, stamp(run.path)) for run in found), name)
    return Response(drawn, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=3600"})


@router.get("/runs/{number}/report")
def report(viewer: TheViewer, number: int) -> Response:
    """The report that a run has written, without scripts and apart from this app."""
    path = _run(viewer, number).report
    if path is None:
        raise HTTPException(404, "this run has no report yet; `sur evaluate` writes one")
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/drawn/{number}")
def drawn_picture(viewer: TheViewer, number: int) -> Response:
    """A picture of an evaluation, by its number among those that the page of runs shows."""
    address = f"/drawn/{number}"
    path = next((path for path, each in _drawn(viewer.runs()) if each == address), None)
    if path is None:
        raise HTTPException(404, "there is no such picture any more; load the page again")
    try:
        content, kind = encode(decode(path.read_bytes()), LARGE)
    except ImageError as error:
        raise HTTPException(404, str(error)) from None
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


@router.get("/quarantine")
def quarantine(request: Request, viewer: TheViewer) -> HTMLResponse:
    """Rows that never came into the store, and why."""
    return page(request, "quarantine", runs=viewer.runs())


def _run(viewer: Viewer, number: int) -> RunRecord:
    found = viewer.runs()
    if not 0 <= number < len(found):
        raise HTTPException(404, f"there is no run {number}; {len(found)} were given")
    return found[number]


def _drawn(runs: list[RunRecord]) -> list[tuple[Path, str]]:
    """The pictures that the page shows, and their addresses."""
    paths = [path for line in picture_lines(runs, PROMPTS) for path, _ in line.pictures if path is not None]
    return [(path, f"/drawn/{place}") for place, path in enumerate(dict.fromkeys(paths))]


def _at(runs: list[RunRecord]) -> str:
    return "-".join(str(run.curves[-1]["step"]) if run.curves else "0" for run in runs)


@lru_cache(maxsize=64)
def _plot(runs: tuple[tuple[str, Path, object], ...], name: str) -> bytes:
    return plot_compared({run: read_run(path).curves for run, path, _ in runs}, name)
