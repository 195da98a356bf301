"""The quarantine: rows that were left out, each with its place, the field at fault, the reason and the remedy.

Rows come here from the check of the source (`scan`) and from the encoding (`sur.features.outcome`). The file is
`<run_dir>/quarantine.jsonl`, a JSON object a line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sur.support.files import write_text

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quarantined:
    """A row that was left out: its place, the field at fault, the reason, and the remedy.

    position: of the row in its source, from 0; -1 where it is not known. field: a column, or the feature that the row
    has no value of.
    """

    position: int
    location: str
    field: str
    reason: str
    remedy: str


def write_quarantine(path: Path, quarantined: Iterable[Quarantined]) -> None:
    """Write the file, all or nothing: a JSON object a line with position, location, field, reason and remedy."""
    write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in quarantined))


def read_quarantine(path: Path) -> list[Quarantined]:
    """The rows of a file; none where there is no file. A line that cannot be read is passed over with a warning."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    rows = []
    for line in filter(str.strip, text.split("\n")):
        try:
            record = json.loads(line)
            rows.append(Quarantined(**{field.name: record[field.name] for field in fields(Quarantined)}))
        except (ValueError, TypeError, KeyError):  # a full disk may have cut the line
            _log.warning("a line of %s cannot be read: %.80s", path, line)
    return rows
