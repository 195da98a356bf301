"""`sur extract`, killed with SIGKILL at ten random moments: the same store, and nothing computed twice."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import save_config_file, save_models, save_rows, store_files

from sur.config.run import load_config
from sur.features.extraction import extract
from sur.flows.runtime.server import EmbeddedServer

KILLS = 10
COMPUTED = re.compile(r"feature (\S+): partition (\d+) computed")
RECEIPT = re.compile(r"receipts/features/([^/]+)/(\d+)/zarr\.json")


@pytest.fixture
def environment(tmp_path):
    """Environment of the runs; they share one Prefect server, as on a user's own."""
    home = tmp_path / "prefect"
    home.mkdir()
    environment = {**os.environ, "PREFECT_HOME": str(home)}
    server = EmbeddedServer(home, environment)
    server.wait_until_ready()
    yield {**environment, "PREFECT_API_URL": server.api_url}
    server.stop()


def receipts(store: Path) -> set[tuple[str, int]]:
    """(feature, partition) of everything that counts as done."""
    return {(found[1], int(found[2])) for name in store_files(store) if (found := RECEIPT.fullmatch(name))}


def computed(log: Path) -> list[tuple[str, int]]:
    """(feature, partition) of everything that a run says it computed."""
    return [(name, int(partition)) for name, partition in COMPUTED.findall(log.read_text(errors="replace"))]


def run_and_kill(config: Path, environment: dict[str, str], log: Path, after: int | None, delay: float) -> int:
    """Run `sur extract`; SIGKILL it `delay` seconds after its `after`-th partition (None: let it end)."""
    command = [str(Path(sys.executable).parent / "sur"), "extract", str(config)]
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream, env=environment) as run:
        while after is not None and run.poll() is None and len(computed(log)) < after:
            time.sleep(0.001)
        if after is not None:
            time.sleep(delay)
            run.kill()
    return run.returncode


@pytest.mark.slow
@pytest.mark.xdist_group("killed")
def test_ten_kills_leave_no_trace_and_cost_no_finished_partition(tmp_path, environment):
    models = save_models(tmp_path / "models")
    rows = save_rows(tmp_path / "rows", pictures=40)
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir()
    whole = load_config(save_config_file(folders["whole"], models, rows))
    extract(whole)

    config = save_config_file(folders["killed"], models, rows)
    store = load_config(config).store.path
    moments = random.Random(7)
    killed = 0
    for attempt in range(KILLS + 1):
        done = receipts(store)
        log = tmp_path / f"{attempt}.log"
        after = moments.choice([0, *range(1, 9)]) if attempt < KILLS else None
        delay = moments.uniform(0, 4) if after == 0 else moments.uniform(0, 0.05)
        code = run_and_kill(config, environment, log, after, delay)
        killed += code == -9
        assert len(set(computed(log))) == len(computed(log))
        assert done.isdisjoint(computed(log)), "a finished partition was computed again"
        assert done | set(computed(log)) <= receipts(store)
    assert killed == KILLS
    assert code == 0, log.read_text()
    ours, theirs = store_files(store), store_files(whole.store.path)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
