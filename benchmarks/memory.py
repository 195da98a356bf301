"""The largest anonymous memory that a piece of work takes."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_SECONDS = 0.005  # between two looks


class Peak:
    """Watches this process inside the block; `megabytes` is the most it held over what it held before."""

    def __enter__(self) -> Self:
        self._before, self._most, self._stop = anonymous(), 0, threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._watcher.join()
        self.megabytes = max(0, self._most - self._before) / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS):
            self._most = max(self._most, anonymous())


def anonymous() -> int:
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
