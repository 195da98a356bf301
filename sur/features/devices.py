"""The device of a worker process: each process takes a free one of its host at its first task and keeps it.

A locked file marks a slot as taken, so the slot is free again the moment its process ends, however it ends. A CPU that
is listed several times makes several slots, so that a machine without GPUs runs (and tests) the same code.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sur.config.run import RunConfig
from sur.support.errors import ConfigError


@dataclass(frozen=True)
class DeviceClaim:
    """A device and the lock on its slot. The lock lasts until the process ends, or claims a device for another run.

    scope: name of the run. descriptor: of the open lock file.
    """

    of_process: ClassVar[DeviceClaim | None] = None

    scope: str
    device: str
    descriptor: int

    @classmethod
    def release(cls) -> None:
        """Free the slot of this process, if it has one."""
        claim, cls.of_process = cls.of_process, None
        if claim is not None:
            os.close(claim.descriptor)


def claim_device(devices: Sequence[str], scope: str) -> str:
    """One of the devices for this process: the same at every call, and no device of another process of the scope.

    devices: torch devices of this host, such as `cuda:0`. scope: a name that all workers of one run share.

    Raises: ConfigError when more processes than devices call this.
    """
    claim = DeviceClaim.of_process
    if claim is not None and claim.scope == scope:
        return claim.device
    DeviceClaim.release()  # of an earlier run in this process, as on a cluster that outlives runs
    for slot, device in enumerate(devices):
        descriptor = os.open(_lock_file(scope, slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        DeviceClaim.of_process = DeviceClaim(scope, device, descriptor)
        return device
    raise ConfigError(
        f"flow.devices has {len(devices)} devices ({', '.join(devices)}), all taken by other workers of this run on "
        "this host; name a device for every worker process, or start fewer workers"
    )


def forget_devices(scope: str) -> None:
    """Remove the lock files on this host of a run whose workers have ended."""
    for path in _folder().glob(f"{scope}-*.lock"):
        path.unlink(missing_ok=True)


def on_device(config: RunConfig, device: str) -> RunConfig:
    """The configuration with every encoder on one device."""
    sections = {name: getattr(config, name) for name in ("llm", "text", "vae")}
    moved = {name: part.model_copy(update={"device": device}) for name, part in sections.items() if part is not None}
    return config.model_copy(update=moved)


def _lock_file(scope: str, slot: int) -> Path:
    """Path of a slot's lock file."""
    return _folder() / f"{scope}-{slot}.lock"


def _folder() -> Path:
    """Folder of the lock files of this user on this host."""
    folder = Path(tempfile.gettempdir()) / f"sur-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder} belongs to another user; remove it, or set TMPDIR to a folder of your own")
    return folder
