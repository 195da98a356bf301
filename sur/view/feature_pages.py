"""Pages of features: the list is the overview's; here is one with its identity and statistics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from sur.charts import shown
from sur.store_summary import feature_line
from sur.view.pages import TheViewer, feature_address, page

router = APIRouter()


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
        statistics=None if made is None else shown(made),
        older=older,
    )
