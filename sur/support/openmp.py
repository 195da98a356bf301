"""How long OpenMP's threads spin while they wait for one another; every command sets it before torch is imported.

A step on a CPU has thousands of barriers. GNU OpenMP's threads spin at each of them. If another process, even one of
the lowest priority, has the core of one thread, all others burn their time meanwhile, and a step takes tens of times as
long. Threads that spin briefly and then sleep lose next to nothing on a quiet machine: `python benchmarks/busy.py`.
"""

import os

SPIN_COUNT = "5000"
_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spin_briefly() -> None:
    """Set GOMP_SPINCOUNT for this process and its children, unless the user's environment chose how threads wait.

    Without effect once torch is imported, and where torch is built with another OpenMP (macOS, Windows).
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
