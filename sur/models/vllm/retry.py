"""Requests to a vLLM server: repeated where that may help, refused with a reason where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx

from sur.config.features import VLLMConfig
from sur.support.errors import EngineGone, EngineRefused
from sur.support.proxies import proxy_applies

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
Answer = TypeVar("Answer")


class TransientError(Exception):
    """A failure that may be over in a moment."""


async def with_retries(
    work: Callable[[], Awaitable[Answer]], config: VLLMConfig, address: str, check: Callable[[], None]
) -> Answer:
    """The answer of `work`, which is repeated at growing intervals while it fails in a way that may pass.

    check: called after each failure; it may raise an error that explains the failure. Raises: EngineGone when the
    server does not answer within `config.patience_seconds`.
    """
    loop = asyncio.get_running_loop()
    began, pause = loop.time(), FIRST_PAUSE_SECONDS
    while True:
        try:
            async with asyncio.timeout(config.timeout_seconds):  # httpx limits the time to each byte, not to the last
                return await work()
        except (httpx.TransportError, TransientError, TimeoutError) as error:
            check()
            reason = str(error) or type(error).__name__
            hung = isinstance(error, (httpx.ReadTimeout, TimeoutError))
            if hung or loop.time() - began + pause > config.patience_seconds:
                took = f"in {config.timeout_seconds:g} s" if hung else f"for {loop.time() - began:.0f} s"
                raise EngineGone(
                    f"vLLM's server at {address} did not answer {took} ({reason}). What is cached is safe; "
                    "see the server's log, start it again, and run the same command again to resume."
                ) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def get_within(address: str, seconds: float) -> httpx.Response:
    """The response of a server's address, whole within some seconds. Raises httpx.HTTPError without one."""

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(timeout=seconds, trust_env=proxy_applies(address)) as http:
            try:
                async with asyncio.timeout(seconds):
                    return await http.get(address)
            except TimeoutError:
                raise httpx.ReadTimeout(f"no whole answer in {seconds:g} s") from None

    return asyncio.run(get())


def answered_object(response: httpx.Response, address: str) -> dict[str, Any]:
    """The JSON object that a server answered. Raises EngineRefused for any other answer."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise EngineRefused(
            f"the server at {address} answered {response.text[:200]!r} where vLLM answers a JSON object; is it vLLM's?"
        )
    return content


def raise_for_response(response: httpx.Response, address: str) -> None:
    """Raises: TransientError for an answer's status that may pass, EngineRefused for any other error status."""
    if response.status_code in TRANSIENT_STATUSES:
        raise TransientError(f"status {response.status_code}")
    if response.status_code in (401, 403):
        raise EngineRefused(f"the server at {address} wants another key: set VLLM_API_KEY to it")
    if response.is_error:
        raise EngineRefused(
            f"the server at {address} refused a request ({response.status_code}): {response.text[:500]}"
        )
