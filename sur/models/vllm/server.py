"""vLLM as a server of an LLM's hidden states: its command line, and a server that lives as long as the run."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from sur.config.features import VLLMConfig
from sur.models.vllm.retry import get_within
from sur.support import supervise
from sur.support.errors import EngineGone
from sur.support.proxies import direct_loopback

logger = logging.getLogger(__name__)

CONNECTOR = {
    "kv_connector": "HiddenStates",
    "kv_connector_module_path": "sur.models.vllm.connector",
    "kv_role": "kv_producer",
}
POLL_SECONDS = 0.5
NEWS_SECONDS = 30.0  # between two log lines while the server starts
LOG_LINES = 6  # of the server's log in an error message
TAIL_BYTES = 2**18  # of the server's log that are searched for them
ROOM_BYTES = 2**30  # that the exchange folder may need
_ERROR = re.compile(r"(?:^|\s)[\w.]*(?:Error|Exception|Killed): ")


@dataclass(frozen=True)
class ServedModel:
    """The model that a server serves. layers: those whose states it hands over; without any it generates text."""

    model: str
    compute_dtype: str
    layers: tuple[int, ...]
    max_model_len: int
    trust_remote_code: bool


def serve_command(
    serving: ServedModel, config: VLLMConfig, python: str, exchange: Path, host: str, port: int
) -> list[str]:
    """The server's command; it needs this package's folder on PYTHONPATH, or the package installed beside vLLM."""
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", serving.model]
    command += ["--host", host, "--port", str(port)]
    command += ["--dtype", serving.compute_dtype, "--max-model-len", str(serving.max_model_len)]
    command += ["--tensor-parallel-size", str(config.tensor_parallel_size)]
    command += ["--no-enable-prefix-caching", "--enforce-eager", "--generation-config", "vllm"]
    command += ["--disable-uvicorn-access-log"]
    command += ["--trust-remote-code"] if serving.trust_remote_code else []
    command += _hidden_states(serving.layers, exchange) if serving.layers else []
    return [*command, *config.server_args]


def _hidden_states(layers: Sequence[int], exchange: Path) -> list[str]:
    """Options with which the server hands over hidden states."""
    speculative = {
        "method": "extract_hidden_states",
        "num_speculative_tokens": 1,
        "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": list(layers)}},
    }
    transfer = {**CONNECTOR, "kv_connector_extra_config": {"exchange": str(exchange)}}
    return ["--speculative-config", json.dumps(speculative), "--kv-transfer-config", json.dumps(transfer)]


def connector_path(folder: Path) -> Path:
    """A folder for PYTHONPATH with this package and nothing else of our environment, which vLLM's must not see."""
    folder.mkdir(parents=True, exist_ok=True)
    link, new, package = folder / "sur", folder / f"sur.{os.getpid()}", Path(__file__).absolute().parents[2]
    if not link.is_symlink() or link.readlink() != package:
        new.symlink_to(package)
        os.replace(new, link)
    return folder


def serve_environment(config: VLLMConfig) -> dict[str, str]:
    """Environment variables of the command, besides PYTHONPATH."""
    return {"VLLM_CPU_KVCACHE_SPACE": str(config.cpu_cache_gib), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def shell_line(environment: Mapping[str, str], command: Sequence[str]) -> str:
    """Environment and command as one line for a shell."""
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in environment.items()), shlex.join(command)])


class LaunchedServer:
    """A server on 127.0.0.1 and a free port (or `port`). It ends with this process, however that ends."""

    def __init__(
        self,
        serving: ServedModel,
        config: VLLMConfig,
        port: int | None = None,
        key: str | None = None,
        section: str = "llm.vllm",
    ) -> None:
        self._config, self._section = config, section
        python = str(config.python)
        self._folder = Path(tempfile.mkdtemp(prefix="sur-vllm-", dir=_fast_folder()))
        self.log = self._folder / "server.log"
        path = connector_path(self._folder / "path")
        port = port or _free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.exchange = self._folder / "exchange"
        command = serve_command(serving, config, python, self.exchange, "127.0.0.1", port)
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}
        if key is not None:  # every client has to send it, so that nobody else on this machine uses the server
            environment["VLLM_API_KEY"] = key
        logger.info("starting vLLM (%s) for %s", python, serving.model)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, supervise.__file__, str(self._folder), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={
                    **environment,
                    **direct_loopback(environment),
                    **serve_environment(config),
                    "PYTHONPATH": str(path),
                    "PYTHONSAFEPATH": "1",  # a folder of the user's that is named as one of our modules is not ours
                },
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return once the server answers. Raises EngineGone when it has ended or does not answer in time."""
        deadline = time.monotonic() + self._config.startup_seconds
        reported = began = time.monotonic()
        while time.monotonic() < deadline:
            self.check()
            try:
                if get_within(f"{self.address}/health", 5.0).status_code == 200:
                    logger.info("vLLM answers after %.0f s", time.monotonic() - began)
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() - reported > NEWS_SECONDS:
                reported = time.monotonic()
                logger.info("waiting for vLLM to load the model, for %.0f s now", reported - began)
            time.sleep(POLL_SECONDS)
        words = self._tail()
        self.stop()
        raise EngineGone(
            f"vLLM's server was not ready in {self._config.startup_seconds:.0f} s; raise "
            f"{self._section}.startup_seconds if the model takes longer to load. The end of its log:\n{words}"
        )

    @property
    def pid(self) -> int:
        """Id of the process that supervises the server's."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the server's process is over."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Raises EngineGone with the end of the log when the server has ended."""
        if not self.ended:
            return
        raise EngineGone(
            f"vLLM's server has ended (exit code {self._process.returncode}); what is cached is safe. If memory was "
            f"short, give it less to hold: {self._section}.server_args=['--max-num-batched-tokens=2048'] or "
            f"'--gpu-memory-utilization=0.8' there, a smaller {self._section}.cpu_cache_gib, or more GPUs by "
            f"{self._section}.tensor_parallel_size. The end of its log:\n{self._tail()}"
        )

    def stop(self) -> None:
        """End the server and all its processes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        for last_resort in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(3 * supervise.GRACE_SECONDS)
                break
            except subprocess.TimeoutExpired:  # another process holds the pipe open too
                last_resort()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _tail(self) -> str:
        """The last lines of the server's log; of those that name an error, where there are any."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        errors = [line for line in lines if _ERROR.search(line) and "root cause" not in line]
        return "\n".join(list(dict.fromkeys(errors or lines))[-LOG_LINES:])


def _fast_folder() -> str | None:
    """A folder in memory with enough room; None, the system's folder for temporary files, where there is none."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ROOM_BYTES
    return str(memory) if usable else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class OwnServer:
    """A launched server that is started when it is first needed, and started anew when it has ended.

    section: of the configuration, for messages.
    """

    def __init__(self, config: VLLMConfig, section: str) -> None:
        self._config, self._section = config, section
        self._server: LaunchedServer | None = None
        self.key = secrets.token_hex()  # that the server wants from its clients

    def running(self, serving: ServedModel) -> LaunchedServer:
        """The server, ready to answer. Raises: EngineGone when it does not start."""
        if self._server is not None and self._server.ended:
            self.close()
        if self._server is None:
            self._server = LaunchedServer(serving, self._config, key=self.key, section=self._section)
            try:
                self._server.wait_until_ready()
            except BaseException:
                self.close()
                raise
        return self._server

    def close(self) -> None:
        """End the server, if one was started."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
