"""Asks a server for states: several prompts at a time, again where that may help, and never of another server."""

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
from sur.models.vllm.protocol import ABOUT, DTYPES, KEY, VERSION, About, NotWritten, Wanted, take
from sur.models.vllm.retry import Passing, patiently, raise_for
from sur.models.vllm.version import feature_version
from sur.support.errors import EngineRefused

logger = logging.getLogger(__name__)

PROVEN = (
    "llama",
    "qwen3",
    "mistral",
    "gemma4_text",
)  # architectures whose states were compared with transformers', see docs/vllm.md


@dataclass(frozen=True)
class Expected:
    """What a server has to serve for its states to be of a feature's identity; layers: at least these."""

    weights: str
    compute_dtype: str
    layers: tuple[int, ...]
    engine_version: str
    longest: int


class Client:
    """Talks to one server for one call; `check` is called after every failure, and may raise what explains it.

    key: what the server wants to hear; default: VLLM_API_KEY.
    """

    def __init__(
        self,
        config: VLLMConfig,
        address: str,
        expected: Expected,
        check: Callable[[], None] = lambda: None,
        key: str | None = None,
    ) -> None:
        self._config, self._expected, self._check, self._address = config, expected, check, address
        self._about: About | None = None
        self._model = ""
        self._meeting = asyncio.Lock()
        key = key or os.environ.get("VLLM_API_KEY")
        limits = httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(config.timeout_seconds, connect=10.0, pool=None),
            limits=limits,
            trust_env=False,  # a proxy is for the world, not for this machine's own server
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    async def states(self, prompts: Sequence[list[int]], wanted: Sequence[Wanted]) -> list[Tensor]:
        """States of prompts of token ids, each as its `wanted` says: (layers, dim) or (layers, tokens, dim).

        Raises:
            EngineRefused: the server is not the one expected, or will not serve a prompt.
            EngineGone: it does not answer, in spite of patience.
        """
        turn = asyncio.Semaphore(self._config.concurrency)

        async def one(ids: list[int], what: Wanted) -> Tensor:
            async with turn:
                return await self._patiently(lambda: self._ask(ids, what))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(ids, what)) for ids, what in zip(prompts, wanted, strict=True)]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _patiently(self, work: Callable[[], Any]) -> Any:
        return await patiently(work, self._config, self._address, self._check)

    async def _ask(self, ids: list[int], wanted: Wanted) -> Tensor:
        async with self._meeting:  # one asks, the others wait
            about = self._about = self._about or await self._meet()
        answer = await self._post(ids, wanted.params())
        if answer.get("instance") != about.instance:
            self._about = None  # started anew meanwhile, perhaps with another model: look first, then ask again
            raise Passing("the server was started anew")
        if "error" in answer:
            raise EngineRefused(
                f"vLLM's server at {self._address} refused a prompt of {len(ids)} tokens: {answer['error']}"
            )
        if "file" not in answer:
            raise Passing("the server computed no states")
        folder = self._config.exchange or Path(about.exchange)
        try:
            states, back = take(folder, answer["file"])
        except NotWritten as error:
            raise Passing(f"the server could not hand over states through {folder}: {error}") from None
        except FileNotFoundError:
            if not folder.is_dir():
                raise EngineRefused(
                    f"{folder}, through which the server at {self._address} hands over states, is not there. It "
                    "must be reachable from here too: set llm.vllm.exchange to what it is called on this machine"
                ) from None
            raise Passing(f"the server's file of states is not in {folder}, its log may say why") from None
        except (OSError, ValueError, SafetensorError) as error:
            raise EngineRefused(
                f"the states of the server at {self._address} cannot be read from {folder}: {error}. It must be "
                "a folder that this user may read and write"
            ) from error
        shape = (
            (len(wanted.layers),) if wanted.pooling != "tokens" else (len(wanted.layers), wanted.stop - wanted.start)
        )
        if back != ids or states.shape[:-1] != shape or states.dtype != DTYPES[wanted.dtype]:
            raise EngineRefused(
                f"vLLM's server at {self._address} gave states of other tokens than were asked: {tuple(states.shape)} "
                f"{states.dtype} for {len(back)} tokens, expected {shape} {wanted.dtype} for {len(ids)}. "
                "Nothing was cached."
            )
        return states

    async def _meet(self) -> About:
        """Ask what is served, and refuse what is not expected."""
        response = await self._http.get("/v1/models")
        raise_for(response, self._address)
        self._model = response.json()["data"][0]["id"]
        answer = await self._post([0], {ABOUT: True})
        if "about" not in answer or answer["about"].get("protocol") != VERSION:
            raise EngineRefused(
                f"the server at {self._address} does not hand over hidden states as this version asks for them; start "
                "it with the command that `sur serve CONFIG` prints"
            )
        about = About.read(answer["about"])
        self._refuse_another(about)
        logger.info(
            "vLLM %s serves %s in %s, layers %s, on %d device(s)",
            about.engine_version, about.model, about.compute_dtype, list(about.layers), about.tensor_parallel_size,
        )  # fmt: skip
        return about

    def _refuse_another(self, about: About) -> None:
        wanted = asdict(self._expected)
        there = {
            "weights": about.weights,
            "compute_dtype": about.compute_dtype,
            "engine_version": feature_version(about.engine_version),
        }
        faults = [
            f"{name}: expected {wanted[name]!r}, it has {value!r}"
            for name, value in there.items()
            if wanted[name] != value
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
        raise_for(response, self._address)
        return (response.json().get("kv_transfer_params") or {}).get(KEY) or {}
