"""The LLM served by vLLM, in an environment or on a machine of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sur.config.features import LLMConfig
from sur.features.encoders.llm.engine import Pooled, padded
from sur.models.prompt_tokens import Tokens
from sur.models.vllm.client import Client, ExpectedServer
from sur.models.vllm.protocol import StatesRequest
from sur.models.vllm.server import OwnServer, ServedModel
from sur.models.vllm.version import engine_version

CHUNK = 64  # prompts whose states are handed on together
ROOM = 16  # tokens beyond the longest prompt that is expected: one is generated, one is drafted


class VLLMEngine:
    """A server that runs, or one that is started with the first prompt and ends with `close` or with this process."""

    def __init__(self, config: LLMConfig, folder: Path, template_tokens: int) -> None:
        assert config.vllm is not None
        self.config, self._vllm = config, config.vllm
        self._folder, self._longest = folder, template_tokens + config.max_tokens
        self._server = OwnServer(self._vllm, "llm.vllm")
        self._version: str | None = None

    def identity(self) -> dict[str, str]:
        """vLLM's minor version: of the environment that would serve, or of the server that does."""
        if self._version is None:
            self._version = engine_version(self._vllm)
        return {"engine": "vllm", "engine_version": self._version}

    def serving(self) -> ServedModel:
        """What a server for this configuration serves."""
        config = self.config
        return ServedModel(
            str(self._folder), config.compute_dtype, config.layers, self._longest + ROOM, config.trust_remote_code
        )

    def pooled(self, prompts: Sequence[Tokens], layers: Sequence[int], weights: str) -> Iterator[Pooled]:
        """States in the stored dtype (float32 for float16, whose overflow is to be seen); many prompts at a time."""
        if not prompts:
            return
        dtype = "bfloat16" if self.config.store_dtype == "bfloat16" else "float32"
        requests = [
            StatesRequest(tuple(layers), self.config.pooling, prompt.start, prompt.stop, dtype) for prompt in prompts
        ]
        longest = max(len(prompt.ids) for prompt in prompts)
        version = self.identity()["engine_version"]
        expected = ExpectedServer(weights, self.config.compute_dtype, tuple(layers), version, longest + 1)
        address, check, key = self._vllm.endpoint, lambda: None, None
        if address is None:
            server = self._server.running(self.serving())
            address, check, key = server.address, server.check, self._server.key

        async def all_states() -> list[Tensor]:
            async with Client(self._vllm, address, expected, check, key) as client:
                return await client.states([prompt.ids for prompt in prompts], requests)

        states = asyncio.run(all_states())
        for start in range(0, len(prompts), CHUNK):
            items = list(range(start, min(start + CHUNK, len(prompts))))
            by_layer = {layer: [states[item][place] for item in items] for place, layer in enumerate(layers)}
            yield Pooled(
                items,
                {layer: self._together(each) for layer, each in by_layer.items()},
                sum(len(prompts[item].ids) for item in items),
            )

    def close(self) -> None:
        """End the server that was started here."""
        self._server.close()

    def _together(self, states: list[Tensor]) -> Tensor:
        return padded(states, self.config.max_tokens) if self.config.pooling == "tokens" else torch.stack(states)
