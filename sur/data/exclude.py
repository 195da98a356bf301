"""Files of row ids that are to be left out: `data.exclude`, as `sur lint --write` makes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sur.support.errors import ConfigError, NotFound, RowError
from sur.support.files import write_text

HEADING = "# Rows to leave out: data.exclude=THIS_FILE. An id a line; what follows it is a comment.\n"


def read_exclude(path: Path | None) -> frozenset[bytes]:
    """Ids in a file: one a line as 32 hex digits, what follows them and lines that begin with # are comments.

    Raises: NotFound without the file; RowError for a line that is no id.
    """
    if path is None:
        return frozenset()
    if not path.is_file():
        raise NotFound(f"data.exclude is {path}, which is not a file; `sur lint --write FILE` makes one")
    ids = set()
    for number, line in enumerate(_text(path).split("\n"), start=1):
        first = line.split(maxsplit=1)[0] if line.strip() else "#"
        if first.startswith("#"):
            continue
        if not re.fullmatch(r"[0-9a-fA-F]{32}", first):
            reason = f"line {number} of {path} begins with {first[:40]!r}, which is no row id"
            raise RowError("data.exclude", reason, "write ids of 32 hex digits, one a line")
        ids.add(bytes.fromhex(first))
    return frozenset(ids)


def write_exclude(path: Path, rows: Mapping[str, str]) -> int:
    """Add row ids (hex), each followed by its reason, to a file, which is made where there is none; all or nothing.

    Returns: the number of ids that the file has then. Raises: RowError when the file has a line that is no id.
    """
    known = read_exclude(path) if path.is_file() else frozenset()
    text = _text(path) if path.is_file() else HEADING
    new = {row: reason for row, reason in rows.items() if bytes.fromhex(row) not in known}
    lines = [text, "\n" * (not text.endswith("\n"))] + [f"{row}  {' '.join(why.split())}\n" for row, why in new.items()]
    write_text(path, "".join(lines))
    return len(known) + len(new)


def _text(path: Path) -> str:
    """Content of the file. Raises: ConfigError when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8: {error.reason}"
        raise ConfigError(
            f"data.exclude is {path}, which cannot be read ({why}); `sur lint --write FILE` makes one"
        ) from error
