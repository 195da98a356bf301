"""`sur up` before anything is started: a port that it cannot have."""

import socket
import time

import pytest

from sur.flows.runtime.up import up
from sur.support.errors import ConfigError


def test_a_port_of_any_other_program_is_refused_at_once(tmp_path):
    with socket.socket() as other:  # it answers nothing
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(ConfigError, match=f"something serves port {port} already; give another port by --port"):
            up(port, "sur", 1, tmp_path / "logs", lambda: pytest.fail("started"))
        assert time.monotonic() - started < 10
    assert not (tmp_path / "logs").exists()


def test_a_port_that_is_none_is_refused(tmp_path, monkeypatch):
    def forbidden(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    with pytest.raises(ConfigError, match=r"port 80 cannot be served .*Permission denied.*--port"):
        up(80, "sur", 1, tmp_path / "logs", lambda: pytest.fail("started"))
