"""The LLM that rewrites, served by vLLM: completions of its OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from sur.config.curation import RewriteConfig
from sur.data.curation.writers.generation import SEED_BITS
from sur.data.curation.writers.text_log import Written, digest
from sur.models.locate import Located
from sur.models.vllm.retry import raise_for_response, with_retries
from sur.models.vllm.server import OwnServer, ServedModel
from sur.models.vllm.version import engine_version
from sur.support.errors import EngineRefused
from sur.support.proxies import proxy_applies

SECTION = "rewriting.vllm"


class VLLMGenerator:
    """A running server, or one that is started with the first prompt and ends with `close` or with this process.

    A launched server serves the model's own folder. For a server that was running before, the identity has the name
    under which it serves its model; the user has to see to it that its weights are those of `rewriting.model`.
    """

    def __init__(self, config: RewriteConfig, located: Located) -> None:
        assert config.vllm is not None
        self.config, self._vllm, self._folder = config, config.vllm, located.folder
        self._server = OwnServer(self._vllm, SECTION)
        self._identity: dict[str, str] | None = None

    def identity(self) -> dict[str, str]:
        """vLLM's minor version, and the name under which a running server serves its model."""
        if self._identity is None:
            identity = {"engine": f"vllm {engine_version(self._vllm, SECTION)}"}
            if self._vllm.endpoint is not None:
                identity["served"] = self._served(self._vllm.endpoint)
            self._identity = identity
        return self._identity

    def write(self, prompts: Sequence[list[int]], inputs: Sequence[str], tokenizer: Any) -> list[Written]:
        """A text for each prompt, many prompts at a time.

        Raises: EngineGone, EngineRefused as the states' client does.
        """
        address, check, key = self._vllm.endpoint, lambda: None, os.environ.get("VLLM_API_KEY")
        if address is None:
            server = self._server.running(self._serving())
            address, check, key = server.address, server.check, self._server.key
        return asyncio.run(self._ask_all(address, check, key, prompts, inputs))

    def close(self) -> None:
        """End the server that was started here."""
        self._server.close()

    async def _ask_all(
        self,
        address: str,
        check: Callable[[], None],
        key: str | None,
        prompts: Sequence[list[int]],
        inputs: Sequence[str],
    ) -> list[Written]:
        turn = asyncio.Semaphore(self._vllm.concurrency)
        async with _client(address, key, self._vllm.timeout_seconds) as http:
            listed = await with_retries(lambda: _get(http, "/v1/models", address), self._vllm, address, check)
            model = listed["data"][0]["id"]

            async def one(ids: list[int], input: str) -> Written:
                async with turn:
                    return await with_retries(
                        lambda: self._ask(http, address, model, ids, input), self._vllm, address, check
                    )

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(*each)) for each in zip(prompts, inputs, strict=True)]
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, http: httpx.AsyncClient, address: str, model: str, ids: list[int], input: str) -> Written:
        config = self.config
        seed = None if config.temperature == 0 else int(digest([config.seed, input]), 16) % 2**SEED_BITS
        body = {
            "model": model,
            "prompt": ids,
            "max_tokens": config.max_new_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "repetition_penalty": config.repetition_penalty,
            **({} if seed is None else {"seed": seed}),
        }
        response = await http.post("/v1/completions", json=body)
        raise_for_response(response, address)
        answer = response.json()
        choice = answer["choices"][0]
        finished = choice.get("finish_reason") == "stop"
        tokens = int((answer.get("usage") or {}).get("completion_tokens") or 0) - finished  # it counts the end token
        return Written(str(choice["text"]).strip(), tokens, finished, seed)

    def _served(self, address: str) -> str:
        key = os.environ.get("VLLM_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        response = httpx.get(f"{address}/v1/models", headers=headers, timeout=10.0, trust_env=proxy_applies(address))
        if response.is_error:
            raise EngineRefused(f"the server at {address} does not list its models ({response.status_code})")
        return str(response.json()["data"][0]["id"])

    def _serving(self) -> ServedModel:
        config = self.config
        longest = config.max_prompt_tokens + config.max_new_tokens
        return ServedModel(str(self._folder), config.compute_dtype, (), longest, config.trust_remote_code)


def _client(address: str, key: str | None, timeout_seconds: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=address,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(timeout_seconds, connect=10.0, pool=None),
        limits=httpx.Limits(max_connections=None),
        trust_env=proxy_applies(address),
    )


async def _get(http: httpx.AsyncClient, path: str, address: str) -> dict[str, Any]:
    response = await http.get(path)
    raise_for_response(response, address)
    return response.json()
