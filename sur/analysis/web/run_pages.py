"""Pages of runs: runs side by side, plots and pictures, the report of each run, and quarantined rows."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response

from sur.analysis.reports.compare_runs import PROMPTS_PER_SET, different_settings, picture_lines, score_lines
from sur.analysis.reports.runs import RunRecord
from sur.analysis.web.pages import TheViewer, page
from sur.analysis.web.security import REPORT_POLICY
from sur.analysis.web.store_pages import LARGE_SIDE
from sur.analysis.web.viewer import Viewer
from sur.support.images import ImageError, decode, encode
from sur.training.tracking.plots import compared_names

router = APIRouter()


@router.get("/runs")
def runs_page(request: Request, viewer: TheViewer) -> HTMLResponse:
    """The page of all runs side by side."""
    runs = viewer.runs()
    addresses = dict(_drawn(runs))
    return page(
        request,
        "runs",
        runs=runs,
        settings=different_settings(runs),
        plots=[
            (name, f"/runs/plot?name={quote(name, safe='')}&at={_last_steps(runs)}")
            for name in compared_names({run.name: run.curves for run in runs})
        ],
        scores=score_lines(runs),
        drawn=picture_lines(runs, PROMPTS_PER_SET),
        picture=addresses.__getitem__,
    )


@router.get("/runs/plot")
def curve_plot(viewer: TheViewer, name: str, at: str = "") -> Response:
    """A plot of one recorded number of all runs over their steps. `at` only makes the address of a new plot differ."""
    if name not in compared_names({run.name: run.curves for run in viewer.runs()}):
        raise HTTPException(404, f"no run recorded {name}")
    return Response(
        viewer.curve_plots.get(name), media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=3600"}
    )


@router.get("/runs/{number}/report")
def run_report(viewer: TheViewer, number: int) -> Response:
    """The report that a run has written, without scripts and without access to this app."""
    path = _run(viewer, number).report
    if path is None:
        raise HTTPException(404, "this run has no report yet; `sur evaluate` writes one")
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/drawn/{number}")
def drawn_picture(viewer: TheViewer, number: int) -> Response:
    """A picture of an evaluation, by its number among those that the page of runs shows."""
    address = f"/drawn/{number}"
    path = next((path for path, other in _drawn(viewer.runs()) if other == address), None)
    if path is None:
        raise HTTPException(404, "there is no such picture any more; load the page again")
    try:
        content, kind = encode(decode(path.read_bytes()), LARGE_SIDE)
    except ImageError as error:
        raise HTTPException(404, str(error)) from None
    return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


@router.get("/quarantine")
def quarantine_page(request: Request, viewer: TheViewer) -> HTMLResponse:
    """The page of rows that never came into the store, with the reasons."""
    return page(request, "quarantine", runs=viewer.runs())


def _run(viewer: Viewer, number: int) -> RunRecord:
    runs = viewer.runs()
    if not 0 <= number < len(runs):
        raise HTTPException(404, f"there is no run {number}; {len(runs)} were given")
    return runs[number]


def _drawn(runs: list[RunRecord]) -> list[tuple[Path, str]]:
    """The pictures that the page shows, and their addresses."""
    paths = [path for line in picture_lines(runs, PROMPTS_PER_SET) for path, _ in line.pictures if path is not None]
    return [(path, f"/drawn/{place}") for place, path in enumerate(dict.fromkeys(paths))]


def _last_steps(runs: list[RunRecord]) -> str:
    return "-".join(str(run.curves[-1]["step"]) if run.curves else "0" for run in runs)
