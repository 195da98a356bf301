"""The embedded Prefect server, which lives exactly as long as the process that started it.

The server keeps a record of the run, whose results do not depend on it. So a server that is killed is started anew on
the same socket and database, and the requests made meanwhile wait.

Prefect's own temporary server outlives a killed parent. This server holds the reading end of a pipe from its parent,
and ends when the pipe closes, whatever ended the parent. It listens on a loopback socket that the parent has bound, so
no port is guessed.
"""

import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from sur.support.errors import ServerLost

STARTUP_SECONDS = 180.0
SHUTDOWN_SECONDS = 10.0
POLL_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0  # between two restarts
STEADY_SECONDS = 60.0  # a server that lived for so long is no repeated failure

ROOT = Path(__file__).absolute().parents[3]  # the folder with the package
# By -P the current folder is not searched: a user's own `queue.py` or `prefect/` there is not what is meant.
PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sur.flows.runtime.server import serve_api; serve_api(int(sys.argv[2]))"
)
_log = logging.getLogger(__name__)
SERVER_ENVIRONMENT = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


class EmbeddedServer:
    """A Prefect server in a child process, on 127.0.0.1 and a free port."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.log = home / "server.log"
        self._environment = {**environment, **SERVER_ENVIRONMENT}
        self._stopping, self._changing = threading.Event(), threading.Lock()
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._listening.bind(("127.0.0.1", 0))
            self._listening.listen(128)
            self.port: int = self._listening.getsockname()[1]
            self._process = self._started("wb")
        except BaseException:
            self._listening.close()
            raise

    def _started(self, mode: Literal["wb", "ab"]) -> subprocess.Popen[bytes]:
        """A new process of the server, which writes its log from the beginning, or goes on with it."""
        descriptor = self._listening.fileno()
        with self.log.open(mode) as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(ROOT), str(descriptor)],
                pass_fds=[descriptor],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the flow, which still has to report its end
            )

    @property
    def api_url(self) -> str:
        """The value of PREFECT_API_URL that reaches this server."""
        return f"http://127.0.0.1:{self.port}/api"

    def wait_until_ready(self) -> None:
        """Return once the server answers; from then on it is started anew when it ends.

        Raises: ServerLost when the server has ended, or does not answer in time.
        """
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_healthy():
                threading.Thread(target=self._restart, name="prefect-server", daemon=True).start()
                return
            time.sleep(0.05)
        problem = "ended" if self._process.poll() is not None else f"did not answer in {STARTUP_SECONDS:.0f} s"
        self.stop()
        raise ServerLost(f"the run's own Prefect server {problem}{self.last_words()}; its log is {self.log}")

    def last_words(self) -> str:
        """The last line of the server's log in brackets; "" where it has none."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.is_file() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" ({last[:300]})" if last else ""

    def _restart(self) -> None:
        """Start the server anew whenever it ends, at growing intervals, until `stop`."""
        pause = 0.0
        while not self._stopping.wait(pause):
            began = time.monotonic()
            while self._process.poll() is None:
                if self._stopping.wait(POLL_SECONDS):
                    return
            pause = min(2 * pause + 1, LONGEST_PAUSE_SECONDS) if time.monotonic() - began < STEADY_SECONDS else 0.0
            with self._changing:
                if self._stopping.is_set():
                    return
                code = self._process.returncode
                _log.warning("Prefect's server has ended (code %s)%s and is started anew", code, self.last_words())
                self._process = self._started("ab")

    def stop(self) -> None:
        """End the server by closing its pipe; kill it if it does not end in time."""
        self._stopping.set()
        with self._changing:
            self._listening.close()
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


def serve_api(descriptor: int) -> None:
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
