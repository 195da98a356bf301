"""train.compile: the same losses as without, or a clear refusal where nothing can be compiled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: torch.compile warns of torch's own deprecations.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_trainer import batches, training
for step in training(compile=sys.argv[2] == "yes", steps=3, accumulate=2).run(batches()):
    print(*step.losses.values())
"""


def run(choice: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1] / "support"), choice]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_a_compiled_training_has_the_losses_of_one_that_is_not(tmp_path):
    compiled, plain = (run(choice, TORCHINDUCTOR_CACHE_DIR=str(tmp_path)) for choice in ("yes", "no"))
    assert compiled.returncode == 0, compiled.stderr
    found, expected = ([float(value) for value in done.stdout.split()] for done in (compiled, plain))
    assert len(expected) == 6 and found == pytest.approx(expected, rel=1e-4)
    assert any(tmp_path.rglob("*.so"))


@pytest.mark.slow
def test_where_nothing_can_be_compiled_it_is_refused(tmp_path):
    refused = run("yes", CXX="/nowhere/g++", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert "ConfigError: train.compile=true needs a C++ compiler on this machine" in refused.stderr
