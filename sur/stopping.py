"""Stopping a run: Ctrl-C and SIGTERM become one exception, one line that says what is kept, and an exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sur.build.config import BuildConfig
    from sur.config import RunConfig


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop; its text is what the user is told."""

    def __init__(self, number: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell gives a command that this signal ended."""
        return 128 + self.number


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` on SIGINT and SIGTERM inside the block, where they are not ignored; only in the main thread."""

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    try:
        before = {number: signal.signal(number, stop) for number in heard}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped(error: KeyboardInterrupt, config: RunConfig | BuildConfig) -> Stopped:
    """The exception of a run that was stopped, with what its store and its run folder hold now."""
    from sur.config import RunConfig

    return stopped_with(
        error, [*_partitions(config), *_steps(config)] if isinstance(config, RunConfig) else config.kept()
    )


def stopped_with(error: KeyboardInterrupt, kept: Sequence[str]) -> Stopped:
    """The exception of work that was stopped and goes on from what is `kept`."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    if not kept:
        return Stopped(number, "stopped before anything was saved")
    return Stopped(number, f"stopped; kept: {' and '.join(kept)}. The same command goes on from there")


def _partitions(config: RunConfig) -> list[str]:
    """What is committed to the store; a bucket is not asked, which may take long."""
    from cache import CacheError
    from sur.standing import partitions

    path = config.store.path
    if isinstance(path, str):
        return [f"every finished partition in {path}"]
    try:
        done, total = partitions(config)
    except CacheError:
        return []
    return [f"{done} of {total} partitions in {path}"] if total else []


def _steps(config: RunConfig) -> list[str]:
    """The newest checkpoint of the run folder."""
    from sur.standing import last_step

    step = last_step(config)
    return [f"the training at step {step} of {config.train.steps} in {config.run_dir}/checkpoints"] if step else []
