"""sur.flows.runtime.launch and flows.server: whose Prefect server is used, and that ours never outlives its run."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from recording_proxy import recording_proxy
from tiny_run import save_config_file, save_models, save_rows

from sur.cache import Store
from sur.config.run import load_config
from sur.flows.runtime import launch
from sur.flows.runtime.launch import configured_server, run_flow
from sur.flows.runtime.server import EmbeddedServer
from sur.support.errors import ServerLost
from sur.support.signals import Stopped

STARTER = """
import sys, time
from pathlib import Path
from sur.flows.runtime.launch import prefect_ready
with prefect_ready(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def server_processes(home: Path) -> list[int]:
    """Ids of the embedded servers that have this Prefect home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"sur.flows.runtime.server" in command and f"PREFECT_HOME={home}\0".encode() in environment + b"\0":
                found.append(int(entry.name))
    return found


def wait_until_gone(home: Path, seconds: float = 20.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := server_processes(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.mark.parametrize(
    ("environment", "server"),
    [
        ({}, None),
        ({"PREFECT_API_URL": ""}, None),
        ({"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, "http://127.0.0.1:4200/api"),
        ({"PREFECT_PROFILE": "team"}, "http://127.0.0.1:9/api"),
        ({"PREFECT_PROFILE": "bare"}, None),
        ({"PREFECT_PROFILE": "absent"}, None),
    ],
)
def test_a_server_is_configured_by_environment_or_profile(tmp_path, environment, server):
    (tmp_path / "profiles.toml").write_text(
        'active = "bare"\n[profiles.team]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n[profiles.bare]\n'
    )
    assert configured_server({"PREFECT_HOME": str(tmp_path), **environment}) == server


@pytest.mark.xdist_group("prefect")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_embedded_server_ends_with_its_run_however_that_ends(tmp_path, how):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment["HOME"] = str(tmp_path / "home")
    home = tmp_path / "run" / "prefect"
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        assert len(server_processes(home)) == 1
        run.send_signal(how)
    assert wait_until_gone(home) == []
    assert not (tmp_path / "home" / ".prefect").exists()
    assert (home / "prefect.db").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_runs_started_at_once_in_one_new_folder_all_get_their_server(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", STARTER, str(tmp_path / "run")]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    try:
        assert [run.stdout.readline() if run.stdout else "" for run in runs] == ["ready\n"] * 3
    finally:
        for run in runs:
            run.kill()
            run.communicate()
    assert wait_until_gone(tmp_path / "run" / "prefect") == []


@pytest.mark.xdist_group("prefect")
def test_python_m_tells_user_errors_with_exit_code_2(tmp_path):
    path = save_config_file(tmp_path, tmp_path, save_rows(tmp_path / "rows", 1, 1))
    command = [sys.executable, "-m", "sur.flows.extract", str(path), "trian.steps=3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.strip() == "error: override 'trian.steps=3': unknown key 'trian'; did you mean 'train'?"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/api", "foo"])
def test_a_server_that_does_not_answer_is_told_in_one_line(tmp_path, address):
    config = save_config_file(tmp_path, tmp_path / "models", save_rows(tmp_path / "rows"))
    done = subprocess.run(
        [sys.executable, "-m", "sur.flows.extract", str(config)],
        env={**os.environ, "PREFECT_API_URL": address, "PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert f"the Prefect server {address} does not answer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def unlike_ours(tmp_path_factory):
    """A finished `sur extract` in a folder with the user's own packages and behind proxies.

    Yields the process, its configuration, and the addresses that the proxy was asked for.
    """
    folder = tmp_path_factory.mktemp("unlike")
    work = folder / "work"
    for package in ("flows", "cache", "prefect", "uvicorn", "tests"):
        (work / package).mkdir(parents=True)
        (work / package / "__init__.py").write_text(f"raise ImportError('the user's own {package}')\n")
    (work / "queue.py").write_text("raise ImportError('the user's own queue')\n")
    config = save_config_file(folder, save_models(folder / "models"), save_rows(folder / "rows", 2))
    kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    with recording_proxy() as (proxy, asked):
        environment = {**kept, "HTTP_PROXY": proxy, "https_proxy": proxy, "ALL_PROXY": "socks5://127.0.0.1:9"}
        command = [str(Path(sys.executable).parent / "sur"), "extract", str(config)]
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=300)
        yield done, load_config(config), asked


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_a_flow_command_works_beside_packages_of_the_user_s_own(unlike_ours):
    done, config, _ = unlike_ours
    assert done.returncode == 0, done.stderr
    assert Store.open(config.store.path).n_rows == 4


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_a_run_s_own_server_is_not_asked_through_a_proxy(unlike_ours):
    done, _, asked = unlike_ours
    assert asked == []
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ALL_PROXY names a SOCKS proxy, which needs the package socksio") == 1


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_a_killed_server_is_started_anew_and_the_run_goes_on(tmp_path):
    config = save_config_file(tmp_path, save_models(tmp_path / "models"), save_rows(tmp_path / "rows", 40))
    home, log = load_config(config).run_dir / "prefect", tmp_path / "log"
    command = [sys.executable, "-m", "sur.flows.extract", str(config), "flow.partitions_per_task=1"]
    killed = 0
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as run:
        while run.poll() is None:
            if killed < 2 and log.read_text().count(" computed") > 20 * killed:
                for process in server_processes(home):
                    os.kill(process, signal.SIGKILL)
                    killed += 1
            time.sleep(0.05)
    text = log.read_text()
    assert (run.returncode, killed) == (0, 2), text
    assert text.count("Prefect's server has ended (code -9) and is started anew") == 2
    assert "Traceback" not in text
    assert Store.open(load_config(config).store.path).n_rows == 80
    assert wait_until_gone(home) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_prefect_turns_into_another_error_is_told_as_a_stop(tmp_path, monkeypatch, number):
    def flow(_config: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ValueError("Task run is not set") from None

    monkeypatch.setattr(launch, "prefect_ready", lambda _run_dir: nullcontext())
    monkeypatch.setattr(launch.importlib, "import_module", lambda _name: SimpleNamespace(train=flow))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Stopped, match="stopped before anything was saved") as stop:
            run_flow("train", load_config(save_config_file(tmp_path, tmp_path, tmp_path)))
        assert stop.value.exit_code == 128 + number
        monkeypatch.setattr(
            launch.importlib, "import_module", lambda _name: SimpleNamespace(train=lambda _config: int("no signal"))
        )
        with pytest.raises(ValueError, match="no signal"):
            run_flow("train", load_config(save_config_file(tmp_path, tmp_path, tmp_path)))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_server_that_does_not_start_says_why(tmp_path):
    server = EmbeddedServer(
        tmp_path, {**os.environ, "PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////no/such/place"}
    )
    with pytest.raises(ServerLost, match=rf"own Prefect server ended \(.+\); its log is {tmp_path / 'server.log'}"):
        server.wait_until_ready()
