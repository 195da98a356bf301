"""The app: its parts put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from cache import CacheError
from sur.inspection.errors import NotInStore
from sur.view import feature_pages, row_pages, run_pages, store_pages
from sur.view.guard import Guard
from sur.view.pages import failure
from sur.view.viewer import Viewer

STATIC = Path(__file__).parent.parent / "static"


def create_app(viewer: Viewer, host: str = "127.0.0.1") -> FastAPI:
    """The app over a store; `host`: the address that it is served at."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        viewer.watch.start()
        viewer.load_pictures()  # the VAE's weights, while the first page is read
        yield
        viewer.watch.stop()
        viewer.jobs.stop()

    app = FastAPI(title="sur view", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.viewer = viewer
    app.add_middleware(Guard, host=host)
    for pages in (store_pages, row_pages, feature_pages, run_pages):
        app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.exception_handler(HTTPException)
    def _refused(request: Request, error: HTTPException) -> Response:
        return failure(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def _misasked(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        return failure(request, 422, f"{fault['loc'][-1]}: {fault['msg']}")

    @app.exception_handler(NotInStore)
    def _absent(request: Request, error: NotInStore) -> Response:
        return failure(request, 404, str(error))

    @app.exception_handler(CacheError)
    def _damaged(request: Request, error: CacheError) -> Response:
        return failure(request, 500, str(error))

    return app
