"""The app as a whole: pages, static files, security and errors; and the server that it runs in."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sur.analysis.web import row_pages, run_pages, store_pages
from sur.analysis.web.pages import failure
from sur.analysis.web.security import SecurityMiddleware
from sur.analysis.web.viewer import Viewer
from sur.cache import CacheError
from sur.support.errors import ConfigError, NotInStore

STATIC = Path(__file__).parent / "static"


def create_app(viewer: Viewer, host: str = "127.0.0.1") -> FastAPI:
    """The app for a store; host: the address that the server listens on."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        viewer.watch.start()
        viewer.load_pictures()  # loads the VAE while the first page is read
        yield
        viewer.watch.stop()
        viewer.jobs.stop()

    app = FastAPI(title="sur view", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.viewer = viewer
    app.add_middleware(SecurityMiddleware, host=host)
    for pages in (store_pages, row_pages, run_pages):
        app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.exception_handler(HTTPException)
    def _refused(request: Request, error: HTTPException) -> Response:
        return failure(request, error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def _invalid_query(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        return failure(request, 422, f"{fault['loc'][-1]}: {fault['msg']}")

    @app.exception_handler(NotInStore)
    def _absent(request: Request, error: NotInStore) -> Response:
        return failure(request, 404, str(error))

    @app.exception_handler(CacheError)
    def _damaged(request: Request, error: CacheError) -> Response:
        return failure(request, 500, str(error))

    return app


def serve_app(app: FastAPI, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Run the server until it is stopped; `ready` is called with the address once it listens. port: 0 for a free one.

    Raises: ConfigError when the server cannot listen on the address.
    """
    with listen(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises: ConfigError as `serve_app`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            f"--host {host} is no address of this machine ({error}); leave it out for loopback"
        ) from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        remedy = "give --port 0 for a free one" if port else "give an address of this machine"
        raise ConfigError(f"cannot listen on {host} port {port} ({error.strerror}); {remedy}") from error
    return listening
