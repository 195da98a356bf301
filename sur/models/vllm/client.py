"""A client of one vLLM server: states of several prompts at a time, of the expected model and no other."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from safetensors import SafetensorError
from torch import Tensor

from sur.config.features import VLLMConfig
from sur.models.vllm.protocol import ABOUT, DTYPES, KEY, VERSION, NotWritten, ServerInfo, StatesRequest, take_states
from sur.models.vllm.retry import TransientError, answered_object, raise_for_response, with_retries
from sur.models.vllm.version import feature_version
from sur.support.errors import EngineRefused
from sur.support.proxies import proxy_applies

logger = logging.getLogger(__name__)

# Architectures whose states were compared with transformers'; see docs/vllm.md.
PROVEN = ("llama", "qwen3", "mistral", "gemma4_text")


@dataclass(frozen=True)
class ExpectedServer:
    """The server whose states have a feature's identity. layers: it serves these at least. longest: tokens a prompt."""

    weights: str
    compute_dtype: str
    layers: tuple[int, ...]
    engine_version: str
    longest: int


class Client:
    """Talks to one server for one call.

    check: called after each failure; it may raise an error that explains the failure. key: the server's API key;
    default: VLLM_API_KEY.
    """

    def __init__(
        self,
        config: VLLMConfig,
        address: str,
        expected: ExpectedServer,
        check: Callable[[], None] = lambda: None,
        key: str | None = None,
    ) -> None:
        self._config, self._expected, self._check, self._address = config, expected, check, address
        self._about: ServerInfo | None = None
        self._model = ""
        self._first_contact = asyncio.Lock()
        key = key or os.environ.get("VLLM_API_KEY")
        limits = httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(config.timeout_seconds, connect=10.0, pool=None),
            limits=limits,
            trust_env=proxy_applies(address),
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    async def states(self, prompts: Sequence[list[int]], requests: Sequence[StatesRequest]) -> list[Tensor]:
        """States of prompts of token ids, each as its request says: (layers, dim) or (layers, tokens, dim).

        Raises:
            EngineRefused: the server is not the one expected, or will not serve a prompt.
            EngineGone: the server does not answer, after all retries.
        """
        turn = asyncio.Semaphore(self._config.concurrency)

        async def one(ids: list[int], request: StatesRequest) -> Tensor:
            async with turn:
                return await with_retries(lambda: self._ask(ids, request), self._config, self._address, self._check)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(*pair)) for pair in zip(prompts, requests, strict=True)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, ids: list[int], request: StatesRequest) -> Tensor:
        async with self._first_contact:  # one prompt asks for the description, the others wait
            about = self._about = self._about or await self._meet()
        answer = await self._post(ids, request.params())
        if answer.get("instance") != about.instance:
            self._about = None  # started anew meanwhile, perhaps with another model: look first, then ask again
            raise TransientError("the server was started anew")
        if "error" in answer:
            raise EngineRefused(
                f"vLLM's server at {self._address} refused a prompt of {len(ids)} tokens: {answer['error']}"
            )
        if "file" not in answer:
            raise TransientError("the server computed no states")
        folder = self._config.exchange or Path(about.exchange)
        try:
            states, answered = take_states(folder, answer["file"])
        except NotWritten as error:
            raise TransientError(f"the server could not hand over states through {folder}: {error}") from None
        except FileNotFoundError:
            if not folder.is_dir():
                raise EngineRefused(
                    f"{folder}, through which the server at {self._address} hands over states, is not there. It "
                    "must be reachable from here too: set llm.vllm.exchange to what it is called on this machine"
                ) from None
            raise TransientError(f"the server's file of states is not in {folder}, its log may say why") from None
        except (OSError, ValueError, SafetensorError) as error:
            raise EngineRefused(
                f"the states of the server at {self._address} cannot be read from {folder}: {error}. It must be "
                "a folder that this user may read and write"
            ) from error
        layers, tokens = len(request.layers), request.stop - request.start
        shape = (layers, tokens) if request.pooling == "tokens" else (layers,)
        if answered != ids or states.shape[:-1] != shape or states.dtype != DTYPES[request.dtype]:
            raise EngineRefused(
                f"vLLM's server at {self._address} gave states of other tokens than were asked: {tuple(states.shape)} "
                f"{states.dtype} for {len(answered)} tokens, expected {shape} {request.dtype} for {len(ids)}. "
                "Nothing was cached."
            )
        return states

    async def _meet(self) -> ServerInfo:
        """The server's description. Raises EngineRefused when it is not the expected server."""
        response = await self._http.get("/v1/models")
        raise_for_response(response, self._address)
        try:
            self._model = str(answered_object(response, self._address)["data"][0]["id"])
        except (LookupError, TypeError):
            raise EngineRefused(f"the server at {self._address} does not list its models as vLLM does") from None
        answer = await self._post([0], {ABOUT: True})
        described = answer.get("about")
        if not isinstance(described, dict) or described.get("protocol") != VERSION:
            raise EngineRefused(
                f"the server at {self._address} does not hand over hidden states as this version asks for them; start "
                "it with the command that `sur serve CONFIG` prints"
            )
        try:
            about = ServerInfo.read(described)
        except ValueError as error:
            raise EngineRefused(f"the server at {self._address} describes itself in another way: {error}") from None
        self._refuse_another(about)
        logger.info(
            "vLLM %s serves %s in %s, layers %s, on %d device(s)",
            about.engine_version, about.model, about.compute_dtype, list(about.layers), about.tensor_parallel_size,
        )  # fmt: skip
        return about

    def _refuse_another(self, about: ServerInfo) -> None:
        expected = asdict(self._expected)
        served = {
            "weights": about.weights,
            "compute_dtype": about.compute_dtype,
            "engine_version": feature_version(about.engine_version),
        }
        faults = [
            f"{name}: expected {expected[name]!r}, it has {value!r}"
            for name, value in served.items()
            if expected[name] != value
        ]
        if missing := sorted(set(self._expected.layers) - set(about.layers)):
            faults.append(f"layers: {missing} asked, it serves {list(about.layers)}")
        if about.architecture not in (*PROVEN, *self._config.also_proven):
            faults.append(
                f"architecture {about.architecture}: its states were never compared with transformers' (those of "
                f"{', '.join(PROVEN)} were); run `python benchmarks/vllm_parity.py FOLDER --model MODEL`, and if they "
                f"are equal set llm.vllm.also_proven=[{about.architecture}]"
            )
        if about.quantization:
            faults.append(f"quantization: expected none, it has {about.quantization!r}")
        if about.prefix_caching:
            faults.append("prefix caching is on, with which a prompt's states could come from another's")
        if self._expected.longest >= about.max_model_len:
            faults.append(f"max_model_len: {self._expected.longest + 1} needed, it has {about.max_model_len}")
        if faults:
            raise EngineRefused(
                f"the server at {self._address} serves {about.model}, which is not what the configuration says:\n  "
                + "\n  ".join(faults)
                + "\nStart the one that `sur serve CONFIG` prints, or change the configuration. Nothing was cached."
            )

    async def _post(self, ids: list[int], params: dict[str, Any]) -> dict[str, Any]:
        body = {"model": self._model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "detokenize": False}
        response = await self._http.post("/v1/completions", json={**body, "kv_transfer_params": params})
        raise_for_response(response, self._address)
        answer: Any = answered_object(response, self._address).get("kv_transfer_params") or {}
        answer = (answer.get(KEY) or {}) if isinstance(answer, dict) else answer
        if not isinstance(answer, dict):
            raise EngineRefused(f"the server at {self._address} hands over {answer!r:.200} in place of our answer")
        return answer
