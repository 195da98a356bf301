"""The log of the texts that models wrote: append-only, so that no text is written twice and a kill costs one batch.

One JSON line a batch: {"made": {identity}, "texts": [[input, text, tokens, finished, seed], ...]}. A line is appended
whole and synced; a last line that a kill cut short is taken off at the next start. A text is found by the digest of
(identity of the model and its settings, input), wherever it stands.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from sur.config.build_folder import BuildFolder
from sur.support.errors import ConfigError


class Written(NamedTuple):
    """A model's raw text, its length in tokens, whether the model ended it by itself, and the seed (None: greedy)."""

    text: str
    tokens: int
    finished: bool
    seed: int | None = None


def digest(value: Any) -> str:
    """128 bits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class TextLog:
    """The log of one build's folder; only one process at a time has it open.

    Raises: ConfigError when another one has it, or a line in its middle is damaged.
    """

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.path = BuildFolder(run_dir).texts
        self._texts: dict[str, Written] = {}
        self._file = open(self.path, "a+b")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConfigError(f"another `sur build` is at work in {run_dir}; wait for it, or stop it") from None
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, identity: Mapping[str, Any], input: str) -> Written | None:
        """The text that the model of this identity wrote for an input; None when it wrote none."""
        return self._texts.get(digest([identity, input]))

    def append(self, identity: Mapping[str, Any], texts: Mapping[str, Written]) -> None:
        """Add the texts of a batch by their inputs; they are on the disk when this returns, all or nothing."""
        record = {"made": identity, "texts": [[input, *written] for input, written in texts.items()]}
        self._file.write(json.dumps(record, ensure_ascii=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._remember(record)

    def _read(self) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                self._file.truncate(whole)
                break
            try:
                self._remember(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{self.path}: line {number} is damaged ({error}); remove that line") from None
            whole += len(line)
        self._file.seek(0, os.SEEK_END)

    def _remember(self, record: Mapping[str, Any]) -> None:
        for input, *written in record["texts"]:
            self._texts[digest([record["made"], input])] = Written(*written)


def count_texts(run_dir: Path) -> int:
    """Number of texts in a build folder's log."""
    try:
        lines = BuildFolder(run_dir).texts.read_bytes().splitlines(keepends=True)
        return sum(len(json.loads(line)["texts"]) for line in lines if line.endswith(b"\n"))
    except (OSError, ValueError, KeyError):
        return 0
