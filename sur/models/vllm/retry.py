"""Requests to a vLLM server: repeated where that may help, refused with a reason where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

from sur.config.features import VLLMConfig
from sur.support.errors import EngineGone, EngineRefused

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
            return await work()
        except (httpx.TransportError, TransientError) as error:
            check()
            reason = str(error) or type(error).__name__
            hung = isinstance(error, httpx.ReadTimeout)
            if hung or loop.time() - began + pause > config.patience_seconds:
                took = f"in {config.timeout_seconds:g} s" if hung else f"for {loop.time() - began:.0f} s"
                raise EngineGone(
                    f"vLLM's server at {address} did not answer {took} ({reason}). What is cached is safe; "
                    "see the server's log, start it again, and run the same command again to resume."
                ) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


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
