"""Files of row ids that are to be left out: `data.exclude`, as `sur lint --write` makes them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from sur.support.errors import NotFound, RowError

HEADING = "# Rows to leave out: data.exclude=THIS_FILE. An id a line; what follows it is a comment.\n"


def read_exclude(path: Path | None) -> frozenset[bytes]:
    """Ids in a file: one a line as 32 hex digits, what follows them and lines that begin with # are comments.

    Raises: NotFound without the file; RowError for a line that is no id.
    """
    if path is None:
        return frozenset()
    if not path.is_file():
        raise NotFound(f"data.exclude is {path}, which is no file; `sur lint --write FILE` makes one")
    ids = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        first = line.split(maxsplit=1)[0] if line.strip() else "#"
        if first.startswith("#"):
            continue
        if not re.fullmatch(r"[0-9a-fA-F]{32}", first):
            reason = f"line {number} of {path} begins with {first[:40]!r}, which is no row id"
            raise RowError("data.exclude", reason, "write ids of 32 hex digits, one a line")
        ids.add(bytes.fromhex(first))
    return frozenset(ids)


def write_exclude(path: Path, rows: Mapping[str, str]) -> int:
    """Add ids (hex), each with the reason behind it, to those that a file has already, if it is there; all or nothing.

    Returns: how many ids the file has then. Raises: RowError when the file has a line that is no id.
    """
    there = read_exclude(path) if path.is_file() else frozenset()
    said = path.read_text(encoding="utf-8") if path.is_file() else HEADING
    new = {row: reason for row, reason in rows.items() if bytes.fromhex(row) not in there}
    lines = [said, "\n" * (not said.endswith("\n"))] + [f"{row}  {reason}\n" for row, reason in new.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)
    return len(there) + len(new)
