"""Pages of the whole store and of its features: overview, pictures, and the status that pages ask for while open."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sur.analysis.reports.charts import feature_charts
from sur.analysis.reports.store_overview import feature_line, spread_rows, store_overview
from sur.analysis.web.pages import TheViewer, feature_address, page, picture_address
from sur.support.pages import environment

OVERVIEW_ROWS = 16  # rows with pictures on the overview
SMALL_SIDE, LARGE_SIDE = 192, 1024  # pixels of a picture's longer side
router = APIRouter()


@router.get("/")
def overview_page(request: Request, viewer: TheViewer) -> HTMLResponse:
    """The page of the whole store."""
    table = viewer.table
    rows = [
        {
            "id": table.hex_id(place),
            "simple": table.simple[place],
            "complex": table.complex[place],
            "picture": picture_address(viewer, place),
        }
        for place in spread_rows(table, viewer.pictures.feature, OVERVIEW_ROWS)
    ]
    return page(request, "overview", store=store_overview(viewer.store, table), rows=rows, how=viewer.how)


@router.get("/look.css")
def stylesheet() -> Response:
    """The styles that the app shares with reports."""
    return Response(environment().get_template("look.css").render(), media_type="text/css")


@router.get("/status")
def status(viewer: TheViewer) -> dict[str, int | str]:
    """The state of the store, for the pages' scripts, which reload when it changes."""
    table = viewer.table
    done = sum(column.partitions_done for column in table.features.values())
    return {
        "number": table.number,
        "rows": table.n_rows,
        "partitions_read": table.partitions_read,
        "partitions_total": table.partitions_total,
        "done": done,
        "to_do": len(table.features) * table.partitions_total,
        "trouble": viewer.watch.trouble,
    }


@router.get("/pictures/{row_id}")
def picture(
    row_id: str,
    viewer: TheViewer,
    made: str = "",
    large: bool = False,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A row's picture, decoded from its latent. `made` only makes the address of a new picture differ."""
    table = viewer.table
    place = table.find(row_id)
    if place is None or not viewer.has_picture(place):
        raise HTTPException(404, f"row {row_id} has no picture in this store")
    digest = viewer.store.spec(str(viewer.pictures.feature)).identity_digest[:12]
    tag = f'"{digest}-{table.hex_id(place)}-{int(large)}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600" if made else "no-cache"}
    if if_none_match == tag:
        return Response(status_code=304, headers=headers)
    key = f"{digest}-{table.hex_id(place)}"
    content, kind = viewer.thumbnails.get(key, int(table.slots[place]), LARGE_SIDE if large else SMALL_SIDE)
    return Response(content, media_type=kind, headers=headers)


@router.get("/features/{name}")
def feature_page(request: Request, viewer: TheViewer, name: str, renew: bool = False) -> Response:
    """The page of a feature; its statistics over all rows are computed when the page is first opened."""
    column = viewer.table.features.get(name)
    if column is None:
        raise HTTPException(404, f"the store holds no feature {name}")
    if renew:
        viewer.statistics(name, renew=True)
        return RedirectResponse(feature_address(name), 303)
    job = viewer.statistics(name)
    statistics = job.result
    older = statistics is not None and statistics.partitions_done < column.partitions_done
    return page(
        request,
        "feature",
        feature=feature_line(column),
        partitions=viewer.table.partitions_total,
        job=job,
        statistics=None if statistics is None else feature_charts(statistics),
        older=older,
    )
