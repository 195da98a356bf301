"""Stopping a run: Ctrl-C and SIGTERM become one exception, one line that says what is kept, and an exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM inside the block instead of acting on them; only in the main thread.

    Yields the list of their numbers so far: the caller ends its work in order once it is not empty.
    """
    numbers: list[int] = []
    try:
        before = {
            s: signal.signal(s, lambda number, _frame: numbers.append(number)) for s in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:
        yield numbers
        return
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_with(error: KeyboardInterrupt, kept: Sequence[str]) -> Stopped:
    """The exception of work that was stopped and goes on from what is `kept`."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    if not kept:
        return Stopped(number, "stopped before anything was saved")
    return Stopped(number, f"stopped; kept: {' and '.join(kept)}. The same command goes on from there")
