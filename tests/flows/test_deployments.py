"""Deployments on a real Prefect server, run by a real worker: schedules, forms, nights, cancelling, killing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from small_settings import CONFIGS, SMALL
from typer.testing import CliRunner

from sur.cache import Store
from sur.cli.app import app
from sur.config.run import load_config
from sur.shapes.dataset import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("worker")]
SUR = str(Path(sys.executable).parent / "sur")
PREFECT = [sys.executable, "-m", "prefect"]
ROOT = Path(__file__).parents[2]
FAST = ["train.steps=2", "loss.distillation.form=none", "evaluate.sets=[templates]"]
FAST += ["promote.min_new_rows=10", "promote.min_prompts=4"]


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Up:
    """`sur up` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, port = folder, free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = {**os.environ, "PREFECT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        self.environment["PREFECT_WORKER_QUERY_SECONDS"] = "1"  # a started run is not waited for
        self.log = (folder / "up.log").open("wb")
        command = [SUR, "up", "--port", str(port), "--runs", "2"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.environment["PREFECT_API_URL"] = self.api
        deadline = time.monotonic() + 120
        while b"worker of pool" not in (folder / "up.log").read_bytes():
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "up.log").read_text()
            time.sleep(0.2)

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer of the server; None when it has no content."""
        for attempt in range(20):  # the server answers 500 while its SQLite is locked, for a moment
            answer = httpx.request(method, self.api + path, trust_env=False, timeout=30, **options)
            if answer.status_code < 500 or attempt == 19:
                return answer.json() if answer.content else None
            time.sleep(0.5)

    def start(self, deployment: str) -> str:
        """Id of a new run of a deployment."""
        found = self.ask("GET", f"/deployments/name/{deployment}")
        made = self.ask("POST", f"/deployments/{found['id']}/create_flow_run", json={})
        assert "id" in made, made
        return made["id"]

    def state(self, run: str) -> dict:
        return self.ask("GET", f"/flow_runs/{run}")["state"]

    def wait(self, run: str, *names: str, seconds: float = 900) -> dict:
        """The run's state, once it is one of these, or final."""
        deadline = time.monotonic() + seconds
        while True:
            state = self.state(run)
            if state["name"] in names or state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state
            if time.monotonic() > deadline:
                break
            time.sleep(0.3)
        raise AssertionError(f"{state['name']}: {(self.folder / 'runs/up/worker.log').read_text()[-3000:]}")

    def engine(self, run: str) -> psutil.Process:
        """The process of a flow run."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        found = [process for process in below if _runs(process, run)]
        assert found, (self.folder / "runs/up/worker.log").read_text()[-3000:]
        return found[0]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


def _runs(process: psutil.Process, run: str) -> bool:
    try:
        return "prefect.engine" in process.cmdline() and process.environ().get("PREFECT__FLOW_RUN_ID") == run
    except psutil.Error:  # it has ended since
        return False


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    started = Up(tmp_path_factory.mktemp("up"))
    yield started
    below = psutil.Process(started.process.pid).children(recursive=True)
    started.end()
    assert [process for process in below if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.fixture(scope="module")
def world(up):
    """A configuration's file for the shapes world with few rows."""
    write_dataset(up.folder / "run" / "data", rows=32, unpaired=4)
    text = (CONFIGS / "shapes.yaml").read_text().replace("runs/shapes", str(up.folder / "run"))
    path = up.folder / "world.yaml"
    path.write_text(text)
    return path


def test_prefect_s_own_command_makes_the_same_deployments(up, world):
    settings = [*SMALL, "promote.min_new_rows=10"]
    up.call(SUR, "deploy", str(world), *settings, "--name", "ours")
    resolved = up.folder / "theirs.yaml"
    resolved.write_text(json.dumps(load_config(world, settings).model_dump(mode="json")))
    theirs = {**up.environment, "SUR_CONFIG": str(resolved)}
    subprocess.run([*PREFECT, "--no-prompt", "deploy", "--all"], cwd=ROOT, env=theirs, check=True, capture_output=True)
    for flow in ("extract", "train", "pipeline", "nightly"):
        assert up.ask("GET", f"/deployments/name/{flow}/ours")["entrypoint"] == f"sur.flows.{flow}.{flow}"
        mine, other = (up.ask("GET", f"/deployments/name/{flow}/{name}") for name in ("ours", "theirs"))
        for key in ("entrypoint", "description", "tags", "parameters", "parameter_openapi_schema", "work_pool_name",
                    "concurrency_options", "enforce_parameter_schema"):  # fmt: skip
            assert mine[key] == other[key], key
        assert mine["job_variables"]["env"] == other["job_variables"]["env"]
        assert mine["global_concurrency_limit"]["limit"] == other["global_concurrency_limit"]["limit"] == 1
        schedules = [[each["schedule"]["cron"] for each in one["schedules"]] for one in (mine, other)]
        assert schedules[0] == schedules[1] == (["0 2 * * *"] if flow == "nightly" else [])


def test_prefect_s_own_command_deploys_a_flow_by_its_file(up, world):
    given = ["flows/extract.py:extract", "--name", "by-file", "--pool", "sur"]
    environment = {**up.environment, "SUR_CONFIG": str(world)}
    subprocess.run(
        [*PREFECT, "--no-prompt", "deploy", *given], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    deployment = up.ask("GET", "/deployments/name/extract/by-file")
    assert deployment["entrypoint"] == "flows/extract.py:extract"
    assert "RunConfig" in deployment["parameter_openapi_schema"]["definitions"]


def test_the_server_refuses_parameters_that_do_not_fit(up, world):
    up.call(SUR, "deploy", str(world), "--name", "form", "--flow", "extract")
    found = up.ask("GET", "/deployments/name/extract/form")
    bad = {"config": {**found["parameters"]["config"], "flow": {"retries": -1}}}
    answer = up.ask("POST", f"/deployments/{found['id']}/create_flow_run", json={"parameters": bad})
    assert "config.flow.retries" in answer["detail"] and "less than the minimum of 0" in answer["detail"]


def test_schedules_pools_and_tags_are_as_asked(up, world):
    given = [
        "--name",
        "often",
        "--flow",
        "extract",
        "--flow",
        "nightly",
        "--every",
        "30",
        "--tag",
        "gpu",
        "--pool",
        "big",
    ]
    assert up.call(SUR, "deploy", str(world), *given).splitlines()[:2] == [
        "deployed extract/often",
        "deployed nightly/often",
    ]
    made = up.ask("GET", "/deployments/name/nightly/often")
    assert [each["schedule"]["interval"] for each in made["schedules"]] == [1800.0]
    assert (made["work_pool_name"], sorted(made["tags"])) == ("big", ["gpu", "sur"])
    up.call(SUR, "deploy", str(world), "--name", "often", "--flow", "nightly", "--cron", "0 4 * * 1")
    schedules = up.ask("GET", "/deployments/name/nightly/often")["schedules"]
    assert [each["schedule"].get("cron") for each in schedules] == ["0 4 * * 1"]  # in place of the interval
    up.call(SUR, "deploy", str(world), "--name", "often", "--flow", "nightly", "--timezone", "Europe/Berlin")
    (schedule,) = up.ask("GET", "/deployments/name/nightly/often")["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "Europe/Berlin")
    names = [each["name"] for each in up.ask("POST", "/automations/filter", json={})]
    assert names.count("sur: a run whose process is gone has crashed") == 1  # though deployed several times


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--flow", "extrakt"], "there is no flow extrakt to deploy; there are extract, train, pipeline, nightly"),
        (["--flow", "build", "--flow", "extract"], "this is the file of a run; a build's has a section `source`"),
        (["--flow", "nightly", "--cron", "every night"], "cron schedule 'every night'"),
        (["--flow", "nightly", "--cron", "0 2 * * *", "--every", "3"], "either a cron schedule or an interval"),
        (["--flow", "nightly", "--every", "3", "--timezone", "Europe/Berlin"], "an interval has none"),
        (["--flow", "nightly", "--timezone", "Europe/Berln"], "there is no time zone Europe/Berln; did you mean"),
        (["--every", "3"], "say which flow the schedule is for"),
    ],
)
def test_what_cannot_be_deployed_is_told(up, world, options, message):
    done = subprocess.run(
        [SUR, "deploy", str(world), *options], cwd=up.folder, env=up.environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr


def test_a_build_is_deployed_and_run_like_the_others(up):
    narratives = "a woman in a blue dress waits for the rain to stop\ntwo foxes cross a field while it snows\n"
    (up.folder / "prompts.txt").write_text(narratives)
    source = f"source: {{prompts: {up.folder}/prompts.txt, holds: simple}}"
    (up.folder / "rows.yaml").write_text(f"run_dir: {up.folder}/built\n{source}\nkeep_unpaired: true\n")
    assert up.call(SUR, "deploy", "rows.yaml", "--flow", "build", "--every", "60").startswith("deployed build/rows\n")
    assert up.wait(up.start("build/rows"))["type"] == "COMPLETED"
    assert len((up.folder / "built" / "data" / "metadata.jsonl").read_text().splitlines()) == 2


def test_a_night_takes_up_ten_new_rows_and_touches_nothing_else(up, world):
    up.call(
        SUR, "deploy", str(world), *SMALL, *FAST, "store.rows_per_partition=8", "--name", "nights", "--flow", "nightly"
    )
    first = up.start("nightly/nights")
    assert up.wait(first)["type"] == "COMPLETED"
    store = up.folder / "run" / "store.zarr"
    shards = {str(f): (f.read_bytes(), f.stat().st_mtime_ns) for f in store.rglob("c.*") if f.is_file()}
    assert Store.open(store).n_rows == 36

    write_dataset(up.folder / "more", rows=10, unpaired=0, seed=7)
    lines = (up.folder / "run" / "data" / "metadata.jsonl").read_text()
    for line in (up.folder / "more" / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        (up.folder / "more" / row["file_name"]).rename(up.folder / "run" / "data" / f"new-{row['file_name']}")
        lines += json.dumps({**row, "file_name": f"new-{row['file_name']}"}) + "\n"
    (up.folder / "run" / "data" / "metadata.jsonl").write_text(lines)
    second = up.start("nightly/nights")
    assert up.wait(second)["type"] == "COMPLETED"
    after = {str(f): (f.read_bytes(), f.stat().st_mtime_ns) for f in store.rglob("c.*") if f.is_file()}
    assert after.items() > shards.items()
    assert Store.open(store).n_rows == 46
    assert Store.open(store).verify() == []
    verdicts = [json.loads(line) for line in (up.folder / "run" / "promotions.jsonl").read_text().splitlines()]
    assert [(each["candidate"], each["rows"], each["new_rows"]) for each in verdicts] == [
        ("0001", 36, 36),
        ("0002", 46, 10),
    ]
    third = up.start("nightly/nights")  # nothing new, though rows without a complex prompt were never trained on
    assert up.wait(third)["type"] == "COMPLETED"
    assert len((up.folder / "run" / "promotions.jsonl").read_text().splitlines()) == 2
    artifact = up.ask("POST", "/artifacts/latest/filter", json={"artifacts": {"key": {"any_": ["nightly"]}}})[0]
    assert "46 rows in the store" in artifact["data"] and "| 0002 | 46 | 10 |" in artifact["data"]


@pytest.fixture
def long(up, world, tmp_path):
    """Deploys an extraction of many small tasks into the test's one store, and names the deployment."""

    def deploy(name: str, *settings: str) -> str:
        places = {"run_dir": tmp_path / name, "data.path": tmp_path / "data", "store.path": tmp_path / "store.zarr"}
        many = ["store.rows_per_partition=1", "llm.layers=[2,8,14,20,26]", "flow.partitions_per_task=1"]
        asked = [*SMALL, *(f"{key}={path}" for key, path in places.items()), *many, *settings]
        up.call(SUR, "deploy", str(world), *asked, "--name", f"{tmp_path.name}-{name}", "--flow", "extract")
        return f"extract/{tmp_path.name}-{name}"

    write_dataset(tmp_path / "data", rows=48, unpaired=0)
    return deploy


WORKERS = ["flow.runner=processes", "flow.workers=2", "flow.devices=[cpu,cpu]"]


def begun(up, store, *runs):
    """The processes of each run, once all run and the first has its workers.

    Some states of a language model are in the store by then, and much is to be done still.
    """
    for run in runs:
        assert up.wait(run, "Running")["name"] == "Running"
    deadline = time.monotonic() + 200
    while not list(store.glob("receipts/features/llm*/0*/zarr.json")) or len(up.engine(runs[0]).children()) < 2:
        assert time.monotonic() < deadline, (up.folder / "runs/up/worker.log").read_text()[-3000:]
        time.sleep(0.1)
    engines = [up.engine(run) for run in runs]
    opened = Store.open(store)
    assert any(opened.pending(name) for name in opened.features())
    return [[engine, *engine.children(recursive=True)] for engine in engines]


def between_writes(store, seconds=60):
    """Return at a moment when every file of values in the store has its receipt."""
    deadline = time.monotonic() + seconds
    while True:
        written = {(file.parts[-3], int(file.name.split(".")[1])) for file in store.glob("features/*/*/c.*")}
        done = {(file.parts[-3], int(file.parts[-2])) for file in store.glob("receipts/features/*/*/zarr.json")}
        if written <= done:
            return
        assert time.monotonic() < deadline, written - done


def gone(processes, seconds=40):
    deadline = time.monotonic() + seconds
    while left := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.2)
    return []


def test_a_cancelled_run_leaves_no_process_and_its_store_goes_on(up, long, tmp_path):
    store, deployment = tmp_path / "store.zarr", long("one", *WORKERS)
    run = up.start(deployment)
    [processes] = begun(up, store, run)
    assert len(processes) >= 3  # the flow and two workers
    up.ask("POST", f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert up.wait(run)["type"] == "CANCELLED"
    assert gone(processes) == []
    before = len(list(store.glob("receipts/features/*/0*/zarr.json")))
    assert Store.open(store).verify() == []
    assert up.wait(up.start(deployment))["type"] == "COMPLETED"
    assert len(list(store.glob("receipts/features/*/0*/zarr.json"))) > before
    assert Store.open(store).verify() == []


def test_a_killed_run_has_crashed_and_leaves_no_orphan(up, long, tmp_path):
    store, deployment = tmp_path / "store.zarr", long("one", *WORKERS)
    run = up.start(deployment)
    [[flow, *workers]] = begun(up, store, run)
    between_writes(store)
    flow.send_signal(signal.SIGKILL)
    assert up.wait(run)["type"] == "CRASHED"
    assert gone([flow, *workers]) == []
    assert {each.problem for each in Store.open(store).verify()} <= {
        "left by an interrupted write; the next run replaces it"
    }
    assert up.wait(up.start(deployment))["type"] == "COMPLETED"
    assert Store.open(store).verify() == []


def test_two_runs_fill_one_store_though_one_is_killed(up, long, tmp_path):
    store = tmp_path / "store.zarr"
    deployments = long("one", *WORKERS), long("two")
    first, second = (up.start(deployment) for deployment in deployments)
    [[flow, *workers], _] = begun(up, store, first, second)
    flow.send_signal(signal.SIGKILL)
    assert up.wait(first)["type"] == "CRASHED"
    assert up.wait(second)["type"] == "COMPLETED"
    assert gone([flow, *workers]) == []
    opened = Store.open(store)
    assert opened.verify() == []
    assert all(opened.pending(name) == [] for name in opened.features())


def test_there_is_one_server_on_a_port(up):
    port = up.api.split(":")[2].split("/")[0]
    done = subprocess.run(
        [SUR, "up", "--port", port],
        cwd=up.folder,
        env={**up.environment, "PREFECT_API_URL": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "something serves port" in done.stderr


def test_without_a_server_it_is_said_where_to_get_one(monkeypatch, tmp_path, world):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["deploy", str(world)])
    assert "start one by `sur up`" in str(done.exception)


def test_all_ends_with_the_command_even_when_that_is_killed(tmp_path):
    own = Up(tmp_path)
    deadline = time.monotonic() + 60
    while len(below := psutil.Process(own.process.pid).children(recursive=True)) < 4:  # two guards, server, worker
        assert time.monotonic() < deadline
        time.sleep(0.1)
    own.process.kill()
    own.process.wait(10)
    own.log.close()
    assert gone(below) == []


def test_both_servers_listen_on_loopback_alone(up):
    below = psutil.Process(up.process.pid).children(recursive=True)
    addresses = {c.laddr.ip for p in below for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert addresses and addresses <= {"127.0.0.1", "::1"}
