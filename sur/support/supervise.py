"""Runs a command that ends when its parent does, however the parent ends, and leaves neither process nor folder behind.

`python supervise.py FOLDER COMMAND...`: the parent holds the writing end of this process's standard input. When the
parent closes it or dies, the command and all its children get SIGTERM, then SIGKILL, and FOLDER is removed. When the
command ends by itself, the folder stays, since the parent may want to read the log in it.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 15.0  # between SIGTERM and SIGKILL


def main(folder: str, command: list[str]) -> int:
    """Run the command until it ends, or until the parent does; returns the command's exit code."""
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the parent, which then closes the pipe
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda which, _frame: received.append(which))
    orphaned = False
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while child.poll() is None:
            readable, _, _ = select.select([sys.stdin], [], [], 0.5)
            if received or (readable and not os.read(sys.stdin.fileno(), 1024)):
                orphaned = True
                break
    finally:
        _end(child)
        if orphaned:
            shutil.rmtree(folder, ignore_errors=True)
    return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the command's whole process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and _alive(child):
            time.sleep(0.05)
    child.wait()


def _alive(child: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the group is left."""
    child.poll()
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
