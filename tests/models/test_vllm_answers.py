"""Servers that answer slowly, oddly or with hostile files: one error, in the time that the settings give."""

import asyncio
import json
import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

from sur.config.features import VLLMConfig
from sur.models.vllm.client import Client, ExpectedServer
from sur.models.vllm.protocol import VERSION, ServerInfo, StatesRequest, file_name, publish_states, take_states
from sur.models.vllm.version import engine_version
from sur.support.errors import EngineGone, EngineRefused

EXPECTED = ExpectedServer("w", "float32", (1,), "0.32", 8)
REQUEST = StatesRequest((1,), "mean", 0, 2, "float32")
NAME = file_name("request")
MODELS = {"data": [{"id": "m"}]}


def described(exchange) -> dict:
    return ServerInfo(
        VERSION, "i", str(exchange), "0.32.0", "m", "w", "llama", "float32", 128, (1,), False, "", 1
    ).params()


@contextmanager
def answering(models, about, states, pause: float = 0.0, paths=None):
    """A server with these answers to the three requests of a client; `pause`: seconds between two bytes."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for part in [body] if not pause else [body[i : i + 1] for i in range(len(body))]:
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(pause)

        def do_GET(self) -> None:
            self.answer(models)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(about if "sur_about" in asked["kv_transfer_params"] else states)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def ask(address: str, **settings) -> list[torch.Tensor]:
    async def run() -> list[torch.Tensor]:
        config = VLLMConfig(endpoint=address, patience_seconds=0, **settings)
        async with Client(config, address, EXPECTED) as client:
            return await client.states([[5, 6]], [REQUEST])

    return asyncio.run(run())


def ours(content) -> dict:
    return {"kv_transfer_params": {"sur": content}}


def answers(tmp_path, **changes) -> tuple:
    """The three answers of a sound server, with some replaced."""
    sound = {
        "models": MODELS,
        "about": ours({"about": described(tmp_path)}),
        "states": ours({"instance": "i", "file": NAME}),
    }
    return tuple({**sound, **changes}.values())


def test_a_sound_server_is_understood(tmp_path):
    publish_states(tmp_path, NAME, torch.ones(1, 4), [5, 6])
    with answering(*answers(tmp_path)) as address:
        assert torch.equal(ask(address)[0], torch.ones(1, 4))


@pytest.mark.parametrize(
    "models", [[], {}, {"data": []}, {"data": [3]}, {"data": {"id": 1}}, 5, None, b"<html>", b"[" * 9999]
)
def test_odd_lists_of_models_are_refused(tmp_path, models):
    with answering(*answers(tmp_path, models=models)) as address, pytest.raises(EngineRefused, match="the server at"):
        ask(address)


@pytest.mark.parametrize(
    "about",
    [
        [], None, b"", ours([]), ours(7), ours({"about": []}), ours({"about": {"protocol": VERSION}}),
        {"kv_transfer_params": []}, {"kv_transfer_params": "x"}, ours({"about": {**described("x"), "layers": None}}),
        ours({"about": {**described("x"), "layers": ["1"]}}), ours({"about": {**described("x"), "layers": "11"}}),
        ours({"about": {**described("x"), "max_model_len": "128"}}), ours({"about": {**described("x"), "exchange": 5}}),
        ours({"about": {**described("x"), "engine_version": 0.32}}), ours({"about": {**described("x"), "more": 1}}),
    ],
)  # fmt: skip
def test_odd_descriptions_are_refused(tmp_path, about):
    with answering(*answers(tmp_path, about=about)) as address, pytest.raises(EngineRefused, match="the server at"):
        ask(address)


@pytest.mark.parametrize(
    "states", [[], 3, b"}", ours(3), ours({"instance": "i", "file": 5}), ours({"instance": "i", "file": ["x"]})]
)
def test_odd_answers_to_a_prompt_are_refused(tmp_path, states):
    with answering(*answers(tmp_path, states=states)) as address, pytest.raises(EngineRefused):
        ask(address)


def fifo(path):
    os.mkfifo(path)


def sparse(path):
    path.touch()
    os.truncate(path, 2**40)


@pytest.mark.parametrize(
    "put",
    [
        fifo, sparse, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
        lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 100),
        lambda path: path.write_bytes(save({"other": torch.zeros(2)})),
        lambda path: path.write_bytes(save({"states": torch.ones(1, 4), "ids": torch.tensor(5)})),
        lambda path: path.write_bytes(save({"states": torch.ones(1, 4), "ids": torch.tensor([0.5, 1.0])})),
        lambda path: path.write_bytes(save({"states": torch.tensor(1.0), "ids": torch.tensor([5, 6])})),
    ],
)  # fmt: skip
def test_odd_files_of_states_are_refused_and_none_is_waited_for(tmp_path, put):
    put(tmp_path / NAME)
    with answering(*answers(tmp_path)) as address, pytest.raises(EngineRefused):
        ask(address)


def test_a_pipe_in_place_of_a_reason_is_not_waited_for(tmp_path):
    fifo(tmp_path / f"{NAME}.failed")
    with pytest.raises(ValueError, match="is no file"):
        take_states(tmp_path, NAME)


def test_a_byte_now_and_then_is_no_answer(tmp_path):
    slow = answering(*answers(tmp_path), pause=0.2)
    with slow as address, pytest.raises(EngineGone, match="did not answer in 1 s"):
        ask(address, timeout_seconds=1.0)


@pytest.mark.parametrize("answer", [[], {}, b"x", None])
def test_an_odd_version_is_told_with_the_remedy(answer, tmp_path):
    with answering(answer, None, None) as address, pytest.raises(EngineGone, match=r"no vLLM answers at .*sur serve"):
        engine_version(VLLMConfig(endpoint=address))
