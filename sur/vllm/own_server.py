"""The server of one run, which starts with the first need of it and anew when it has ended."""

from __future__ import annotations

import secrets

from sur.vllm.config import VLLMConfig
from sur.vllm.server import LaunchedServer, Serving


class OwnServer:
    """At most one server at a time. section: of the configuration that its messages name."""

    def __init__(self, config: VLLMConfig, section: str) -> None:
        self._config, self._section = config, section
        self._server: LaunchedServer | None = None
        self.key = secrets.token_hex()  # which it asks of its clients

    def running(self, serving: Serving) -> LaunchedServer:
        """The server, ready. Raises: EngineGone when it does not start."""
        if self._server is not None and self._server.ended:
            self.close()
        if self._server is None:
            self._server = LaunchedServer(serving, self._config, key=self.key, section=self._section)
            try:
                self._server.wait_until_ready()
            except BaseException:
                self.close()
                raise
        return self._server

    def close(self) -> None:
        """End the server that was started here."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
