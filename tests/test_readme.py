"""Every command of the README and of docs/commands.md runs, in its order, on small data.

What a reader downloads or edits by hand is put in its place here, and nowhere else: SUBSTITUTES and EDITS.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from run_commands import Run

from sur.adapter.adapter import Adapter
from sur.config.adapter import AdapterConfig
from sur.shapes.dataset import write_dataset

ROOT = Path(__file__).parent.parent
# Models that a reader downloads, and the local ones that stand for them.
SUBSTITUTES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sur/shapes/weights",
    "you/your-adapter": "somebodys-adapter",
    "sur init sd15": "sur init shapes",
}
# What the README asks the reader to write into my.yaml, and fewer steps.
EDITS: dict[str, Any] = {
    "run_dir": "runs/photos",
    "data": {"path": "photos"},
    "store": {"path": "runs/photos/store.zarr"},
    "train": {"batch_size": 8, "steps": 4, "validation_fraction": 0.0, "warmup_steps": 1},
    "loss": {"distillation": {"form": "tokens"}},
}
# The demo's settings made small, for docs/commands.md.
SMALL: dict[str, Any] = {
    "store": {"rows_per_partition": 64},
    "llm": {"layers": [2]},
    "readout": {"queries_per_layer": 64, "rows": 32},
    "train": {"steps": 4, "batch_size": 8, "validation_fraction": 0.0, "warmup_steps": 1},
    "loss": {"distillation": {"form": "teacher", "teacher_steps": 2}},
    "evaluate": {"prompts": 4, "steps": 2, "examples": 1, "resamples": 100},
}


def blocks(page: str) -> list[list[str]]:
    """The commands of a page's fenced blocks, in order: `["sur", ...]` or `["python", block]`."""
    text = (ROOT / page).read_text()
    for original, substitute in SUBSTITUTES.items():
        text = text.replace(original, substitute)
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    kinds = {kind for kind, _ in fenced}
    assert kinds == {"console", "python"}, f"{page} has blocks of {kinds}, which this test would not run"
    commands: list[list[str]] = []
    for kind, body in fenced:
        commands += [["python", body]] if kind == "python" else [shlex.split(line) for line in body.splitlines()]
    assert all(command[0] in ("sur", "python") for command in commands), commands
    return commands


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them changed."""
    merged = dict(values)
    for key, change in changes.items():
        merged[key] = changed(values.get(key, {}), change) if isinstance(change, dict) else change
    return merged


def change_file(file: Path, changes: dict[str, Any]) -> None:
    """Change settings in a YAML file."""
    file.write_text(yaml.safe_dump(changed(yaml.safe_load(file.read_text()), changes)))


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for all commands of this module, so that no command starts one of its own."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    start = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-services"]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(start, env={**os.environ, **private}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(600):
            assert server.poll() is None, (home / "log").read_text()
            try:
                if httpx.get(f"{address}/health", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def folder(tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a clone is, with the small models of the shapes world."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    (tmp_path / "sur" / "shapes").mkdir(parents=True)
    (tmp_path / "sur" / "shapes" / "weights").symlink_to(ROOT / "sur" / "shapes" / "weights")
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_readme_runs(folder: Path) -> None:
    base = json.loads((ROOT / "sur/shapes/weights/text_encoder/config.json").read_text())
    Adapter(AdapterConfig(dim=base["hidden_size"])).save_pretrained(folder / "somebodys-adapter")
    write_dataset(folder / "photos", rows=10, unpaired=0)
    for number, command in enumerate(blocks("README.md")):
        run_to_the_end(command, folder, number)
        if command[:2] == ["sur", "init"]:
            change_file(folder / command[3], EDITS)
    assert (folder / "runs" / "photos" / "adapter" / "config.json").is_file()
    assert (folder / "dogs.png").is_file()


@pytest.mark.slow
def test_every_command_of_the_commands_page_runs(folder: Path) -> None:
    shutil.copytree(ROOT / "configs", folder / "configs")
    change_file(folder / "configs" / "shapes.yaml", SMALL)
    (folder / "prompts.txt").write_text("two (red:1.2) foxes, snowy forest, 8k\nold lighthouse on a cliff, storm\n")
    write_dataset(folder / "runs" / "shapes" / "data", rows=48, unpaired=16)
    commands = blocks("docs/commands.md")
    assert len(commands) >= 8
    for number, command in enumerate(commands):
        if command[1] == "view":
            check_pages(command, folder, number)
        else:
            run_to_the_end(command, folder, number)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8000


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing, f"{page} links to {missing}"


def run_to_the_end(command: list[str], folder: Path, number: int) -> None:
    """Run a command, which has to succeed."""
    run = Run(command, folder, number)
    code = run.wait(600)
    run.process.kill()
    assert code == 0, f"{command} ended with {code}\n{run.printed()}"


def check_pages(command: list[str], folder: Path, number: int) -> None:
    """`sur view` serves until it is stopped: its first page is asked for, then Ctrl-C is sent."""
    serving = Run([*command, "--port", "0", "--no-open"], folder, number)
    try:
        for _ in range(600):
            if addresses := re.findall(r"http://\S+", serving.printed()):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"no address was printed\n{serving.printed()}")
        page = httpx.get(addresses[0], timeout=60)
        serving.interrupt()
        assert serving.wait(60) == 130, serving.printed()
    finally:
        serving.process.kill()
    assert page.status_code == 200 and "64 rows in 1 partitions" in page.text
