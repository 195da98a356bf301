"""Run `sur` commands and Python blocks as a reader of the docs would, without importing torch for each anew.

A fork server imports the large libraries once. Each command then runs in a process of its own, forked from it, with its
own folder, arguments and output files. Its handling of Ctrl-C is Python's own, however the tests were started: a shell
starts background jobs with SIGINT ignored, and an ignored signal is inherited.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

LIBRARIES = ["torch", "transformers", "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "prefect"]


class Run:
    """One command or Python block that was started. `output`: file of what it printed, errors included."""

    def __init__(self, words: list[str], folder: Path, number: int) -> None:
        """Start `["sur", ...]`, or `["python", block]`, in the folder."""
        self.output = folder / f"output-{number:02d}.txt"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        self.process: ForkServerProcess = context.Process(target=_run, args=(words, folder, self.output))
        self.process.start()

    def wait(self, seconds: float) -> int | None:
        """The exit code, None if it still runs after so many seconds."""
        self.process.join(seconds)
        return self.process.exitcode

    def interrupt(self) -> None:
        """Send what Ctrl-C sends."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGINT)

    def printed(self) -> str:
        """What it has printed so far."""
        return self.output.read_text() if self.output.exists() else ""


def _run(words: list[str], folder: Path, output: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(written, 1)
    os.dup2(written, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(folder)
    kind, *rest = words
    if kind == "python":
        exec(compile(rest[0], "block", "exec"), {"__name__": "__main__"})
        return
    from sur.cli.app import main

    sys.argv = [kind, *rest]
    main()
