"""Every command of the README runs, in its order, on a small version of the demo."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
SMALL = {
    "store": {"rows_per_partition": 64},
    "llm": {"layers": [2]},
    "readout": {"queries_per_layer": 64, "rows": 32},
    "train": {"steps": 4, "batch_size": 8, "validation_fraction": 0.0, "warmup_steps": 1},
    "loss": {"distillation": {"form": "teacher", "teacher_steps": 2}},
    "evaluate": {"prompts": 4, "steps": 2, "examples": 1, "resamples": 100},
}


@pytest.mark.slow
def test_every_command_of_the_readme_runs(tmp_path):
    config = yaml.safe_load((ROOT / "configs" / "shapes.yaml").read_text())
    for section, values in SMALL.items():
        config[section] = {**config.get(section, {}), **values}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "shapes.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(ROOT / "configs" / "build-prompts.yaml", tmp_path / "configs")
    (tmp_path / "prompts.txt").write_text("two (red:1.2) foxes, snowy forest, 8k\nold lighthouse on a cliff, storm\n")
    (tmp_path / "sur" / "shapes").mkdir(parents=True)
    (tmp_path / "sur" / "shapes" / "weights").symlink_to(ROOT / "sur" / "shapes" / "weights")
    from sur.shapes.dataset import write_dataset

    write_dataset(tmp_path / "runs" / "shapes" / "data", rows=48, unpaired=16)
    commands = [
        [str(Path(sys.executable).parent / "sur"), *shlex.split(line)[1:]]
        if kind == "console"
        else [sys.executable, "-P", "-c", body]
        for kind, body in BLOCKS
        for line in (body.strip().splitlines() if kind == "console" else [body])
    ]
    assert len(commands) >= 8
    for command in commands:
        if command[1] == "view":
            check_pages(command, tmp_path)
            continue
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def check_pages(command: list[str], folder: Path) -> None:
    """`sur view` serves until it is stopped: its first page is asked for, then Ctrl-C is sent."""
    serving = [*command, "--port", "0", "--no-open"]
    with subprocess.Popen(serving, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = server.stdout.readline()
            page = httpx.get(re.findall(r"http://\S+", said)[0], timeout=60)
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 130, server.stderr.read()
        finally:
            server.kill()
    assert page.status_code == 200 and "64 rows in 1 partitions" in page.text
