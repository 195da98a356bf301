"""Which of a host's devices a worker process computes on: each takes a free one at its first task and keeps it.

A slot is held by a locked file, so that it is free again the moment its process ends, however it ends. A CPU given
several times makes several slots of it, which is how a machine without GPUs runs (and tests) the same code.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sur.config.run import RunConfig
from sur.support.errors import ConfigError

_held: dict[str, tuple[int, str]] = {}  # scope -> lock's descriptor and device; held until the process ends


def claim_device(devices: Sequence[str], scope: str) -> str:
    """One of the devices for this process: the same at every call, and no other process's of the same scope.

    devices: torch devices of this host, such as `cuda:0`. scope: a name that all workers of one run share.

    Raises: ConfigError when more processes than devices ask.
    """
    if scope in _held:
        return _held[scope][1]
    while _held:  # of earlier runs in this process, as on a cluster that goes on
        os.close(_held.popitem()[1][0])
    for slot, device in enumerate(devices):
        descriptor = os.open(_lock_file(scope, slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        _held[scope] = descriptor, device
        return device
    raise ConfigError(
        f"flow.devices has {len(devices)} devices ({', '.join(devices)}), all taken by other workers of this run on "
        "this host; name a device for every worker process, or start fewer workers"
    )


def forget_devices(scope: str) -> None:
    """Remove this host's files of a run whose workers have ended."""
    for path in _folder().glob(f"{scope}-*.lock"):
        path.unlink(missing_ok=True)


def on_device(config: RunConfig, device: str) -> RunConfig:
    """The configuration with every encoder on one device."""
    sections = {name: getattr(config, name) for name in ("llm", "text", "vae")}
    moved = {name: part.model_copy(update={"device": device}) for name, part in sections.items() if part is not None}
    return config.model_copy(update=moved)


def _lock_file(scope: str, slot: int) -> Path:
    return _folder() / f"{scope}-{slot}.lock"


def _folder() -> Path:
    """Of this user, on this host."""
    folder = Path(tempfile.gettempdir()) / f"sur-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to another user; remove it, or set TMPDIR to a folder of your own")
    return folder
