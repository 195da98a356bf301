"""train.compile: adapter and read-out compiled by torch.compile."""

from __future__ import annotations

from typing import Any

import torch

from sur.support.errors import ConfigError


def compile_parts(adapter: Any, objective: Any, device: torch.device) -> None:
    """Compile the adapter and, where there is one, the read-out in place; the names and values of their weights stay.

    The rest of the objective selects rows by their values, which a compiler cannot follow.
    Raises ConfigError when this machine cannot compile.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:
        needed = "a C++ compiler" if device.type == "cpu" else "triton"
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"train.compile=true needs {needed} on this machine ({reason}); install it, or set false"
        ) from error
    adapter.compile()
    if getattr(objective, "read_out", None) is not None:
        objective.read_out.compile()
