"""Parts that all pages share: the frame around them, the page of an error, and addresses."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from markupsafe import Markup
from starlette.responses import HTMLResponse

from sur.analysis.web.viewer import Viewer
from sur.support.pages import render_template


def _viewer(request: Request) -> Viewer:
    return request.app.state.viewer


TheViewer = Annotated[Viewer, Depends(_viewer)]


def page(request: Request, template: str, **context: Any) -> HTMLResponse:
    """A page of the app in its frame."""
    return HTMLResponse(_rendered(request, template, context))


def failure(request: Request, status: int, message: str) -> HTMLResponse:
    """The page of an error, in the frame."""
    return HTMLResponse(_rendered(request, "failure", {"status": status, "message": message}), status)


def row_address(row_id: str) -> str:
    """Address of the page of a row."""
    return f"/rows/{row_id}"


def feature_address(name: str) -> str:
    """Address of the page of a feature."""
    return f"/features/{quote(name, safe='')}"


def picture_address(viewer: Viewer, place: int, large: bool = False) -> str:
    """Address of a row's picture; "" for a row without one.

    The address changes when the feature is computed anew, since browsers keep the picture of an address.
    """
    if not viewer.has_picture(place):
        return ""
    digest = viewer.store.spec(str(viewer.pictures.feature)).identity_digest[:8]
    return f"/pictures/{viewer.table.hex_id(place)}?made={digest}{'&large=true' if large else ''}"


def _rendered(request: Request, template: str, context: dict[str, Any]) -> str:
    viewer = _viewer(request)
    frame = {
        "path": request.url.path,
        "store_path": str(viewer.store.path),
        "table": viewer.table,
        "trouble": viewer.watch.trouble,
        "n_runs": len(viewer.runs()),
        "loading": Markup('loading="lazy"'),
        "row_address": row_address,
        "feature_address": feature_address,
    }
    return render_template(f"{template}.html.j2", frame | context, "sur.analysis.web")
