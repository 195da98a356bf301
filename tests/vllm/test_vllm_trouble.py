"""A real server that is killed, hangs, is another's, runs out of memory or is asked for nonsense."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from tiny_models import save_pipeline
from vllm_parity import TEXT, save_family
from vllm_server import LAYERS, VLLM, configs, running, states_in

from sur.cache import IdentityMismatch, Store
from sur.config.features import VLLMConfig
from sur.config.run import RunConfig, load_config
from sur.features.encoders import LLMEncoder
from sur.features.extraction import extract
from sur.models.vllm.protocol import StatesRequest
from sur.models.vllm.server import serve_command, serve_environment
from sur.support.errors import EngineGone, EngineRefused

GOOD = StatesRequest(LAYERS, "mean", 0, 2, "float32").params()["sur"]


def post(server, params, ids=(5, 6, 7), headers=None, **fields):
    with httpx.Client(base_url=server.address, timeout=60) as http:
        model = http.get("/v1/models").json()["data"][0]["id"]
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "kv_transfer_params": params, **fields}
        return http.post("/v1/completions", json=body, headers=headers or {}).raise_for_status().json()


def processes(server) -> list[psutil.Process]:
    """The server's processes, without the guard."""
    return psutil.Process(server.pid).children(recursive=True)


def test_other_layers_are_refused(smollm2, server):
    with_vllm, _ = configs(smollm2, server, layers=(14, 15))
    with pytest.raises(EngineRefused, match=r"layers: \[14\] asked, it serves \[0, 15, 29, 30\]"):
        LLMEncoder(with_vllm).encode(["a cat"])


def test_another_dtype_is_refused(smollm2, server):
    with_vllm, _ = configs(smollm2, server, compute_dtype="bfloat16")
    with pytest.raises(EngineRefused, match="compute_dtype: expected 'bfloat16', it has 'float32'"):
        LLMEncoder(with_vllm).encode(["a cat"])


def test_a_prompt_longer_than_the_server_takes_is_refused(smollm2, server):
    with_vllm, _ = configs(smollm2, server, max_tokens=5000)
    with pytest.raises(EngineRefused, match="max_model_len: .* needed, it has"):
        LLMEncoder(with_vllm).encode(["cat " * 3000])


@pytest.mark.parametrize(
    "params",
    [
        {"layers": [14]},
        {"layers": "all"},
        {"stop": 4},
        {"start": 2},
        {"pooling": "max"},
        {"path": "/tmp/x"},
    ],
)
def test_nonsense_is_answered_and_writes_nothing(server, params):
    answer = post(server, {"sur": GOOD | params})["kv_transfer_params"]["sur"]
    assert "error" in answer and "file" not in answer
    assert not states_in(server.exchange)


def test_a_request_without_our_part_is_served_as_ever(server):
    assert post(server, None)["choices"][0]["finish_reason"] == "length"
    assert not states_in(server.exchange)


def test_a_client_cannot_choose_where_the_server_writes(server):
    outside = server.exchange.parent / "outside"
    for name in ("../outside", str(outside), "../../outside.safetensors"):
        params = {"sur": GOOD, "hidden_states_path": str(outside)}
        answer = post(server, params, headers={"X-Request-Id": name})["kv_transfer_params"]["sur"]
        assert states_in(server.exchange) == [answer["file"]]
        assert {file.name for file in server.exchange.iterdir()} == {".lock", answer["file"]}
        (server.exchange / answer["file"]).unlink()
    assert not outside.exists()


def test_requests_that_are_given_up_leave_no_file(server):
    async def give_up() -> None:
        async with httpx.AsyncClient(base_url=server.address, timeout=60) as http:
            model = (await http.get("/v1/models")).json()["data"][0]["id"]
            wanted = {"sur": GOOD | {"stop": 400}}
            body = {"model": model, "prompt": list(range(5, 405)), "max_tokens": 1, "kv_transfer_params": wanted}
            tasks = [asyncio.create_task(http.post("/v1/completions", json=body)) for _ in range(24)]
            await asyncio.sleep(0.6)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(give_up())
    for _ in range(3):  # the engine hears of what was given up with its next steps
        answer = post(server, {"sur": GOOD})["kv_transfer_params"]["sur"]
        (server.exchange / answer["file"]).unlink()
        time.sleep(0.5)
    left = states_in(server.exchange)
    assert len(left) < 24  # a file may lie whose answer was under way: swept after minutes
    for name in left:
        (server.exchange / name).unlink()


def test_a_second_server_on_the_same_folder_does_not_start(smollm2, server):
    serving = LLMEncoder(configs(smollm2, server)[0]).serving()
    config = VLLMConfig(launch=VLLM)
    command = serve_command(serving, config, str(config.python), server.exchange, "127.0.0.1", 1)
    environment = {**os.environ, **serve_environment(config), "PYTHONPATH": str(server.exchange.parent / "path")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode and "another server hands over states through" in done.stdout + done.stderr


def test_states_that_the_server_cannot_write_are_said(smollm2, server):
    with_vllm, _ = configs(smollm2, server, vllm={"patience_seconds": 1.0})
    encoder = LLMEncoder(with_vllm)
    encoder.encode(["a cat"])
    limits = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in processes(server)]
    for process, (_, hard) in limits:
        process.rlimit(psutil.RLIMIT_FSIZE, (1024, hard))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(EngineGone, match=r"could not hand over states through .*File too large"):
            encoder.encode(["a dog"])
    finally:
        for process, limit in limits:
            process.rlimit(psutil.RLIMIT_FSIZE, limit)
    assert len(encoder.encode(["a dog"]).values) == len(LAYERS)
    assert not states_in(server.exchange)


def test_a_server_that_hangs_is_said_and_then_asked_again(smollm2, server):
    with_vllm, _ = configs(smollm2, server, vllm={"timeout_seconds": 3.0})
    encoder = LLMEncoder(with_vllm)
    wanted = encoder.encode(["a cat"])
    for process in processes(server):
        process.suspend()
    try:
        with pytest.raises(EngineGone, match="did not answer"):
            encoder.encode(["a dog"])
    finally:
        for process in processes(server):
            process.resume()
    again = encoder.encode(["a cat"])
    for name, arrays in wanted.values.items():
        assert np.allclose(arrays["states"], again.values[name]["states"], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def run_config(smollm2, tmp_path_factory) -> RunConfig:
    """A store of 48 rows with long prompts, in six partitions."""
    folder = tmp_path_factory.mktemp("run")
    save_pipeline(folder / "pipe")
    words = random.Random(0)
    rows = "".join(f"{' '.join(words.choices(TEXT.split(), k=200))},{number} 8k\n" for number in range(48))
    (folder / "rows.csv").write_text("text,prompt\n" + rows)
    (folder / "run.yaml").write_text(
        f"run_dir: {folder}/run\nbase_model: {folder}/pipe\n"
        f"data: {{path: {folder}/rows.csv, format: csv, image_column: null}}\nstore: {{rows_per_partition: 8}}\n"
        f"llm: {{model: {smollm2}, layers: [15, 30], max_tokens: 300, store_dtype: float32}}\n"
    )
    return load_config(folder / "run.yaml", ["loss.alignment.form=tokens", "loss.distillation.form=pooled"])


def with_endpoint(config: RunConfig, address: str) -> RunConfig:
    vllm = {"endpoint": address, "patience_seconds": 2.0, "concurrency": 4}
    llm = type(config.llm)(**{**config.llm.model_dump(exclude={"vllm"}), "backend": "vllm", "vllm": vllm})
    return config.model_copy(update={"llm": llm})


def done(config: RunConfig) -> int:
    store = Store.open(config.store.path)
    name = config.llm.feature_names[0]
    return store.n_partitions - len(store.pending(name)) if name in store.features() else 0


@pytest.mark.slow
def test_a_server_killed_in_the_middle_loses_nothing_and_another_model_is_refused(run_config, smollm2, tmp_path):
    save_family(tmp_path / "other", "llama", smollm2)
    fields = {"layers": (15, 30), "max_tokens": 300}
    with running(smollm2, **fields) as server:
        config, port = with_endpoint(run_config, server.address), int(server.address.rpartition(":")[2])

        def kill_after_the_first_partition() -> None:
            while not list(Path(config.store.path).glob("receipts/features/llm*/*/*")):
                time.sleep(0.02)
            for process in processes(server):
                process.kill()

        killer = threading.Thread(target=kill_after_the_first_partition)
        killer.start()
        with pytest.raises(EngineGone, match="What is cached is safe"):
            extract(config)
        killer.join()
    before = done(config)
    assert 1 <= before < 6
    with running(tmp_path / "other", port, layers=(1, 4)), pytest.raises(EngineRefused, match="weights: expected"):
        extract(config)
    assert done(config) == before
    with running(smollm2, port, **fields):
        extract(config)
    assert done(config) == 6
    store = Store.open(config.store.path)
    hf = LLMEncoder(run_config.llm).encode([row.simple for p in range(6) for row in store.rows(p)])
    for name, arrays in hf.values.items():
        got = store.read(name)["states"]
        assert np.linalg.norm(got - arrays["states"]) < 1e-5 * np.linalg.norm(arrays["states"])
    with pytest.raises(IdentityMismatch, match="engine: stored 'vllm', wanted 'transformers'"):
        extract(run_config)


@pytest.mark.slow
def test_a_server_of_a_killed_run_ends_and_leaves_nothing(smollm2):
    script = (
        "import sys, time\n"
        "from sur.features.encoders import LLMConfig, LLMEncoder\n"
        f"config = LLMConfig(backend='vllm', model={str(smollm2)!r}, layers=(15,), vllm={{'launch': {str(VLLM)!r}}})\n"
        "encoder = LLMEncoder(config)\n"
        "encoder.encode(['a cat'])\n"
        "print(encoder._engine()._server._server.log.parent, flush=True)\n"
        "time.sleep(600)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    folder = Path(run.stdout.readline().strip())
    children = psutil.Process(run.pid).children(recursive=True)
    assert folder.is_dir() and len(children) >= 3
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive and not folder.exists()


@pytest.mark.slow
def test_too_little_memory_is_said_with_what_to_do(smollm2):
    config, _ = configs(smollm2, type("Any", (), {"address": "http://127.0.0.1:1"}))
    vllm = config.vllm.model_copy(update={"endpoint": None, "launch": VLLM, "cpu_cache_gib": 100_000})
    with pytest.raises(EngineGone, match=r"(?s)has ended.*llm.vllm.cpu_cache_gib.*Error"):
        LLMEncoder(config.model_copy(update={"vllm": vllm})).encode(["a cat"])
