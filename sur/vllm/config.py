"""Where vLLM's server is, or how it is started."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class VLLMConfig(BaseModel):
    """Exactly one of `endpoint` and `launch`. None of this is in a feature's identity; what the server serves is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(
        default=None, description="address of a server that runs (see `sur serve`); its key is read from VLLM_API_KEY"
    )
    launch: Path | None = Field(
        default=None, description="Python of vLLM's environment, or its folder: a server is started with the run"
    )
    exchange: Path | None = Field(
        default=None, description="the server's folder of states as it is called here, if under another name than there"
    )
    concurrency: int = Field(default=128, ge=1, description="prompts under way at a time")
    timeout_seconds: float = Field(
        default=900.0, gt=0, description="how long the answer to one prompt may take, its turn on the server included"
    )
    patience_seconds: float = Field(default=60.0, ge=0, description="how long a server that fails is asked again")
    startup_seconds: float = Field(default=1800.0, gt=0, description="how long a server may take to start")
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share the model")
    cpu_cache_gib: int = Field(default=2, ge=1, description="memory for keys, values and states without a GPU")
    also_proven: tuple[str, ...] = Field(
        default=(),
        description="architectures, beyond those compared here, whose states were found equal to transformers' by "
        "`python benchmarks/vllm_parity.py FOLDER --model MODEL`",
    )
    server_args: tuple[str, ...] = Field(default=(), description="further options of vLLM's server")

    @model_validator(mode="after")
    def _one_server(self) -> VLLMConfig:
        if (self.endpoint is None) == (self.launch is None):
            raise ValueError("give either `endpoint` (a server that runs) or `launch` (vLLM's Python, to start one)")
        if self.endpoint is not None and not re.fullmatch(r"https?://[^/]+", self.endpoint):
            raise ValueError(
                f"endpoint must be an address such as http://127.0.0.1:8000, without a path, got {self.endpoint!r}"
            )
        return self

    @property
    def python(self) -> Path:
        """Interpreter that `launch` names. Raises FileNotFoundError when there is none."""
        assert self.launch is not None
        for path in (self.launch, self.launch / "bin" / "python"):
            if path.is_file():
                return path
        raise FileNotFoundError(
            f"vllm.launch: {self.launch} is neither a Python interpreter nor an environment's folder; make one "
            "with `make vllm`, or give the Python in which vLLM is installed"
        )
