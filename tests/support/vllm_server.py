"""A real vLLM server for the tests of vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sur.config.features import LLMConfig, VLLMConfig
from sur.features.encoders import LLMEncoder
from sur.models.vllm.protocol import is_ours
from sur.models.vllm.server import LaunchedServer

ROOT = Path(__file__).parents[2]


VLLM = ROOT / ".venv-vllm"


LAYERS = (0, 15, 29, 30)


CHUNKED = ("--max-num-batched-tokens", "256", "--max-num-seqs", "16")


@contextmanager
def running(model: Path, port: int | None = None, **fields: Any) -> Iterator[LaunchedServer]:
    """A server for a configuration, ready."""
    vllm = VLLMConfig(launch=VLLM, server_args=fields.pop("server_args", ()))
    config = LLMConfig(backend="vllm", model=str(model), vllm=vllm, **({"layers": LAYERS, "max_tokens": 600} | fields))
    server = LaunchedServer(LLMEncoder(config).serving(), vllm, port)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def states_in(folder: Path) -> list[str]:
    """Names of the files of states in a server's folder."""
    return [file.name for file in folder.iterdir() if is_ours(file.name)]


def configs(model: Path, server: LaunchedServer, vllm: dict[str, Any] | None = None, **fields: Any) -> Any:
    """The same features by vLLM and by transformers."""
    common: dict[str, Any] = {"model": str(model), "layers": LAYERS, "max_tokens": 600, "store_dtype": "float32"}
    common |= fields
    reached = VLLMConfig(endpoint=server.address, **(vllm or {}))
    return LLMConfig(backend="vllm", vllm=reached, **common), LLMConfig(**common)
