"""The processes that one command was started in."""

from __future__ import annotations

import os


def launched() -> tuple[int, int]:
    """Number of this process and how many there are, as `accelerate launch` and torchrun say in the environment."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
