"""Pages of the whole store and of its features: overview, pictures, what changes while an extraction runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sur.analysis.reports.charts import feature_charts
from sur.analysis.reports.store_overview import feature_line, spread_rows, store_overview
from sur.analysis.web.pages import TheViewer, feature_address, page, picture_address
from sur.support.pages import environment

SAMPLE = 16
SMALL, LARGE = 192, 1024  # pixels of a picture's side
router = APIRouter()


@router.get("/")
def overview(request: Request, viewer: TheViewer) -> HTMLResponse:
    """What the store holds."""
    table = viewer.table
    rows = [
        {
            "id": table.hex_id(place),
            "simple": table.simple[place],
            "complex": table.complex[place],
            "picture": picture_address(viewer, place),
        }
        for place in spread_rows(table, viewer.pictures.feature, SAMPLE)
    ]
    return page(request, "overview", store=store_overview(viewer.store, table), rows=rows, how=viewer.how)


@router.get("/look.css")
def look() -> Response:
    """The colours and parts that reports have too."""
    return Response(environment().get_template("look.css").render(), media_type="text/css")


@router.get("/status")
def status(viewer: TheViewer) -> dict[str, int | str]:
    """For scripts of the pages: whether there is anything new."""
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
    """A row's picture, decoded from its latent. `made` only makes addresses differ."""
    table = viewer.table
    place = table.find(row_id)
    if place is None or not viewer.has_picture(place):
        raise HTTPException(404, f"row {row_id} has no picture in this store")
    digest = viewer.store.spec(str(viewer.pictures.feature)).identity_digest[:12]
    tag = f'"{digest}-{table.hex_id(place)}-{int(large)}"'
    keeping = {"ETag": tag, "Cache-Control": "private, max-age=3600" if made else "no-cache"}
    if if_none_match == tag:
        return Response(status_code=304, headers=keeping)
    key = f"{digest}-{table.hex_id(place)}"
    content, kind = viewer.thumbnails.get(key, int(table.slots[place]), LARGE if large else SMALL)
    return Response(content, media_type=kind, headers=keeping)


@router.get("/features/{name}")
def feature(request: Request, viewer: TheViewer, name: str, renew: bool = False) -> Response:
    """A feature; its statistics over all rows are computed when its page is first opened."""
    column = viewer.table.features.get(name)
    if column is None:
        raise HTTPException(404, f"the store holds no feature {name}")
    if renew:
        viewer.statistics(name, renew=True)
        return RedirectResponse(feature_address(name), 303)
    job = viewer.statistics(name)
    made = job.result
    older = made is not None and made.partitions_done < column.partitions_done
    return page(
        request,
        "feature",
        feature=feature_line(column),
        partitions=viewer.table.partitions_total,
        job=job,
        statistics=None if made is None else feature_charts(made),
        older=older,
    )
