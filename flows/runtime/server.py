"""The embedded Prefect server, which lives exactly as long as the process that started it.

Prefect's own temporary server outlives a killed parent. This server holds the reading end of a pipe from its parent,
and ends when the pipe closes, whatever ended the parent. It listens on a loopback socket that the parent has bound, so
no port is guessed.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

STARTUP_SECONDS = 180.0
SHUTDOWN_SECONDS = 10.0

ROOT = Path(__file__).absolute().parents[3]  # the folder with the package
# By -P the current folder is not searched: a user's own `queue.py` or `prefect/` there is not what is meant.
PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from sur.flows.runtime.server import serve; serve(int(sys.argv[2]))"
)
SERVER_ENVIRONMENT = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


class EmbeddedServer:
    """A Prefect server in a child process, on 127.0.0.1 and a free port."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._log = home / "server.log"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(128)
            self.port: int = listening.getsockname()[1]
            descriptor = listening.fileno()
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", PROGRAM, str(ROOT), str(descriptor)],
                    pass_fds=[descriptor],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={**environment, **SERVER_ENVIRONMENT},
                    start_new_session=True,  # Ctrl-C is for the flow, which still has to report its end
                )

    @property
    def api_url(self) -> str:
        """The value of PREFECT_API_URL that reaches this server."""
        return f"http://127.0.0.1:{self.port}/api"

    def wait_until_ready(self) -> None:
        """Return once the server answers.

        Raises: RuntimeError when the server has ended, or does not answer in time.
        """
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_healthy():
                return
            time.sleep(0.05)
        problem = "ended" if self._process.poll() is not None else f"did not answer in {STARTUP_SECONDS:.0f} s"
        self.stop()
        raise RuntimeError(f"the embedded Prefect server {problem}; its log is {self._log}")

    def stop(self) -> None:
        """End the server by closing its pipe; kill it if it does not end in time."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2.0)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _end_with_parent() -> None:
    """Wait until the pipe from the parent closes, then end this process."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_SECONDS / 2)
    os._exit(0)


def serve(descriptor: int) -> None:
    """Serve Prefect's API on an already bound socket, until the pipe from the parent closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        lifespan="on",
        log_level="error",
        access_log=False,
    )
    with socket.socket(fileno=descriptor) as listening:
        uvicorn.Server(config).run(sockets=[listening])
