"""A Prefect server and a worker on this machine, for users without a server; both end with the command."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from sur.support import supervise
from sur.support.errors import ConfigError
from sur.support.proxies import direct_loopback, unusable_proxies

STARTUP_SECONDS = 120.0
POLL_SECONDS = 0.5
_log = logging.getLogger(__name__)


def server_address(port: int) -> str:
    """The value of PREFECT_API_URL for the server of `sur up`."""
    return f"http://127.0.0.1:{port}/api"


def up(port: int, pool: str, runs: int, logs: Path, ready: Callable[[], None]) -> None:
    """Run a server and a worker until a signal comes, or one of the two ends; calls `ready` when both are up.

    Server and worker end with this process, however this process ends. runs: how many the worker starts at a time.

    Raises: ConfigError when the port is taken, or one of the two processes ends.
    """
    address, environment = server_address(port), {**os.environ, "DO_NOT_TRACK": "1"}
    environment |= {"PREFECT_API_URL": address, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment |= direct_loopback(environment)  # the worker's runs inherit it
    for name in unusable_proxies(environment):
        del environment[name]
    _require_port(port)
    logs.mkdir(parents=True, exist_ok=True)
    prefect = [sys.executable, "-P", "-m", "prefect"]  # -P: no module of the folder that we are in
    server = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    worker = [*prefect, "worker", "start", "--pool", pool, "--type", "process", "--limit", str(runs)]
    with _running(server, environment, logs / "server.log") as serving:
        _wait(lambda: _answers(address), serving, logs / "server.log")
        with _running(worker, environment, logs / "worker.log") as working:
            os.environ["PREFECT_API_URL"] = address
            ready()
            while serving.poll() is None and working.poll() is None:
                time.sleep(POLL_SECONDS)
            name = "worker" if serving.poll() is None else "server"
            raise ConfigError(f"the {name} has ended; its log is {logs / f'{name}.log'}")


def _require_port(port: int) -> None:
    """Raises ConfigError when this process cannot serve a port of loopback, whatever program has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server: a port that was just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"something serves port {port} already; give another port by --port, or stop that server"
                ) from error
            raise ConfigError(f"port {port} cannot be served ({error}); give another port by --port") from error


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that ends, with all its own children, when this process does."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, supervise.__file__, "", *command],
            stdin=subprocess.PIPE, stdout=stream, stderr=stream, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return
        time.sleep(POLL_SECONDS)
    raise ConfigError(f"Prefect's server did not come up; its log is {log}")


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=2.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
