"""What one busy process does to a training step, for each way in which OpenMP's threads can wait for one another.

`python benchmarks/busy.py FOLDER [--steps N] [--rounds N]`

A step of the shapes world from the cache (attention alignment), alone and beside a process of the lowest priority that
never sleeps. Each case is a process of its own; cases take turns in rounds. Prints medians, and their ratios to a step
of the default setting on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from sur.support.openmp import SPIN_COUNT

CASES: dict[str, dict[str, str]] = {
    "default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    f"GOMP_SPINCOUNT={SPIN_COUNT}, as sur sets it": {"GOMP_SPINCOUNT": SPIN_COUNT},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
OPENMP = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
TRAIN = Path(__file__).with_name("train.py")


@contextmanager
def busy_process() -> Iterator[None]:
    """A process of the lowest priority that never sleeps, for as long as the block lasts."""
    command = [sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"]
    process = subprocess.Popen(command, start_new_session=True)  # Linux shares cores out by session first
    try:
        yield
    finally:
        process.kill()
        process.wait()


def step_seconds(folder: Path, setting: dict[str, str], steps: int) -> list[float]:
    """Seconds of every step of one process with a setting."""
    environment = {name: value for name, value in os.environ.items() if name not in OPENMP} | setting
    command = [sys.executable, str(TRAIN), str(folder), "--size", "shapes", "--case", "cached, attention"]
    done = subprocess.run(
        [*command, "--steps", str(steps)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def main() -> None:
    """Run every setting, quiet and beside the busy process, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each process")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    quiet: dict[str, list[float]] = {case: [] for case in CASES}
    busy: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(arguments.rounds):
        for case, setting in CASES.items():
            print(f"round {number + 1}: {case}", file=sys.stderr)
            quiet[case] += step_seconds(arguments.folder, setting, arguments.steps)
            with busy_process():
                busy[case] += step_seconds(arguments.folder, setting, arguments.steps)
    reference = median(quiet["default"])
    print(f"{os.cpu_count()} cores; medians of {arguments.steps * arguments.rounds} steps\n")
    print("| setting | quiet, ms | of the default | beside a busy process, ms | of the same, quiet |")
    print("|---|---|---|---|---|")
    for case in CASES:
        alone, beside = median(quiet[case]), median(busy[case])
        print(f"| {case} | {1000 * alone:.0f} | {alone / reference:.2f} | {1000 * beside:.0f} | {beside / alone:.2f} |")


if __name__ == "__main__":
    main()
