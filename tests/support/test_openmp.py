"""Commands and flows set how OpenMP's threads wait, before torch is imported; a library import changes nothing."""

import os
import subprocess
import sys

import pytest

from sur.support.openmp import SPIN_COUNT

LOOK = "import os, sys, {module}; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"


def environment_after(module: str, **chosen: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", LOOK.format(module=module)]
    return subprocess.run(command, env=kept | chosen, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("module", ["sur.cli", "sur.cli.app", "sur.flows"])
def test_what_computes_lets_threads_sleep_before_torch_is_imported(module):
    assert environment_after(module) == [SPIN_COUNT, "False"]


def test_a_library_import_changes_no_environment():
    assert environment_after("sur, sur.config.run") == ["None", "False"]


def test_what_the_user_chose_stays():
    assert environment_after("sur.cli", GOMP_SPINCOUNT="7") == ["7", "False"]
    assert environment_after("sur.cli", OMP_WAIT_POLICY="active") == ["None", "False"]
