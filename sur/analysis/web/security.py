"""Security of every response: only known host names are served, nothing is changed, pages load nothing from elsewhere.

A web page elsewhere can make a browser send requests to a server on loopback. It can read the responses only if its own
host name leads there (DNS rebinding), and then the Host header shows that name.
"""

from __future__ import annotations

import ipaddress
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A run's report contains its own styles and pictures. It may run no scripts and has no access to the app's origin.
REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class SecurityMiddleware:
    """ASGI middleware that refuses requests of other sites and adds security headers. host: the address listened on.

    A Host header may name this address or loopback; when the server listens beyond loopback, also the machine's name or
    a numeric address. A page that uses DNS rebinding can send neither.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1") -> None:
        self._app = app
        self._beyond_loopback = not is_loopback(host)
        own = f"[{host}]" if ":" in host.strip("[]") and not host.startswith("[") else host
        self._names = {*LOOPBACK, own.lower()}
        if self._beyond_loopback:
            self._names |= {socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        respond = self._app if refusal is None else refusal

        head = scope["method"] == "HEAD"
        if head and refusal is None:  # the pages know GET alone; the answer is the same without its content
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            if head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await respond(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not self._known(host):
            return PlainTextResponse(
                f"This server does not answer to the name {host!r}; open it as it was printed.", 421
            )
        if method not in ("GET", "HEAD"):
            return PlainTextResponse("This server only reads.", 405, {"Allow": "GET, HEAD"})
        link_followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not link_followed:
            return PlainTextResponse("Pages of other sites may link here, not take anything from here.", 403)
        return None

    def _known(self, host: str) -> bool:
        name = _without_port(host).lower()
        return name in self._names or (self._beyond_loopback and _is_address(name))


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
