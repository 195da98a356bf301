"""A request to a server of vLLM, again where that may help, and refused in words where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

from sur.config.features import VLLMConfig
from sur.support.errors import EngineGone, EngineRefused

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
AGAIN = (408, 425, 429, 500, 502, 503, 504)
Answer = TypeVar("Answer")


class Passing(Exception):
    """Something that may be otherwise in a moment."""


async def patiently(
    work: Callable[[], Awaitable[Answer]], config: VLLMConfig, address: str, check: Callable[[], None]
) -> Answer:
    """Do it again, at growing intervals, while it fails in a way that may pass; `check` may raise what explains it.

    Raises: EngineGone when it does not answer, in spite of patience.
    """
    loop = asyncio.get_running_loop()
    began, pause = loop.time(), FIRST_PAUSE_SECONDS
    while True:
        try:
            return await work()
        except (httpx.TransportError, Passing) as error:
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


def raise_for(response: httpx.Response, address: str) -> None:
    """Raises: Passing for a status that may pass, EngineRefused for any other error."""
    if response.status_code in AGAIN:
        raise Passing(f"status {response.status_code}")
    if response.status_code in (401, 403):
        raise EngineRefused(f"the server at {address} wants another key: set VLLM_API_KEY to it")
    if response.is_error:
        raise EngineRefused(
            f"the server at {address} refused a request ({response.status_code}): {response.text[:500]}"
        )
