"""The benchmarks of the cache run, small; what they measure is for docs/speed.md, not for a test."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_layers_in_the_same_order_correlate_and_the_interval_says_when_questions_decide(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from probe_ranking import rank_correlation

    steady = np.arange(5.0)[:, None] + np.zeros((5, 40))
    assert rank_correlation([1, 2, 3, 4, 5], steady) == "+1.00 [+1.00, +1.00] (p 0.02)"
    assert rank_correlation([5, 4, 3, 2, 1], steady).startswith("-1.00")
    noisy = np.random.default_rng(0).normal(size=(5, 40))
    low, high = rank_correlation([1, 2, 3, 4, 5], noisy).split("[")[1].split("]")[0].split(", ")
    assert float(high) - float(low) > 0.8


@pytest.mark.slow
def test_the_cache_and_its_peers_are_measured_side_by_side(tmp_path):
    size = ["--rows", 512, "--shape", 4, 64]
    only = [
        "plain file, memory map",
        "cache, raw",
        "its loader",
        "its loader, windows",
        "zarr-python",
        "torch .pt dict",
    ]
    printed = run(BENCHMARKS / "cache_io.py", tmp_path / "rows", *size, "--only", *only)
    lines = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]
    assert lines == ["", *only]


@pytest.mark.slow
def test_scale_is_measured_and_plotted(tmp_path):
    printed = run(BENCHMARKS / "scale.py", tmp_path / "rows", "--rows", 600, 1100, "--plot", tmp_path / "scale.png")
    assert printed.count("\n| 600 |") == printed.count("\n| 1,100 |") == 2
    assert (tmp_path / "scale.png").stat().st_size > 1000
