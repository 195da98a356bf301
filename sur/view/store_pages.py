"""Pages of the whole store: the overview, the pictures, and what changes while an extraction runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from sur.store_summary import spread_rows, summarise_store
from sur.templating import environment
from sur.view.pages import TheViewer, page, picture_address

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
    return page(request, "overview", store=summarise_store(viewer.store, table), rows=rows, how=viewer.how)


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
