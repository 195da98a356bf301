"""Serves the app until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from sur.errors import ConfigError


def serve(app: FastAPI, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Listen and answer; `ready` hears the address once connections are taken. port: 0 = a free one.

    Raises: ConfigError when the address cannot be listened on.
    """
    with listen(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            f"--host {host} is no address of this machine ({error}); leave it out for loopback"
        ) from error
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
        made.listen(128)
    except OSError as error:
        made.close()
        remedy = "give --port 0 for a free one" if port else "give an address of this machine"
        raise ConfigError(f"cannot listen on {host} port {port} ({error.strerror}); {remedy}") from error
    return made
