"""Stopping a run: Ctrl-C and SIGTERM become one exception with an exit code and a line that says what is kept."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop; the exception's text is shown to the user."""

    def __init__(self, number: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code that a shell reports for a command ended by this signal."""
        return 128 + self.number


@contextmanager
def stop_on_signals(received: list[int] | None = None) -> Iterator[None]:
    """Raise `Stopped` on SIGINT and SIGTERM inside the block.

    received: gets the numbers of the signals, for a caller whose libraries put other errors in place of `Stopped`. A
    signal that the process ignores stays ignored. Outside the main thread nothing changes.
    """

    def stop(number: int, _frame: object) -> None:
        if received is not None:
            received.append(number)
        raise Stopped(number)

    handled = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    try:
        handlers_before = {number: signal.signal(number, stop) for number in handled}
    except ValueError:  # not the main thread
        handlers_before = {}
    try:
        yield
    finally:
        for number, handler in handlers_before.items():
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


def stopped_with(error: KeyboardInterrupt, results: Sequence[str]) -> Stopped:
    """The exception of work that was stopped: its text names the results that are kept."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    if not results:
        return Stopped(number, "stopped before anything was saved")
    return Stopped(number, f"stopped; kept: {' and '.join(results)}. The same command goes on from there")
