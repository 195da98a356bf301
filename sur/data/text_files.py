"""SURD folders, JSON lines and CSV: text files whose rows name image files."""

from __future__ import annotations

import csv
import json
from collections import Counter, deque
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from sur.config.data import DataConfig
from sur.data.image_folder import ImageFolder
from sur.data.source import Record
from sur.support.errors import RowError

DELIMITERS = ",;\t|"  # of CSV, the usual one first; Excel writes the second or the third, by country and menu
MARKS = {  # a file's first bytes -> its encoding; the longer of two that begin alike comes first
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
UTF8 = "save the file as UTF-8"


class TextFiles:
    """Rows of JSON lines or CSV files (kind `jsonl` or `csv`), in the order of the files' names.

    An image's path is relative to the folder of the file that names it. location: `<file>:<line>`.
    """

    def __init__(self, root: Path, files: list[Path], config: DataConfig, kind: str) -> None:
        self.root = root.absolute()
        self.files = [file.absolute() for file in files]
        self.images = ImageFolder(root, config)
        self.kind = kind
        self.columns = (config.simple_column, config.complex_column, config.image_column)

    def records(self) -> Iterator[Record]:
        """All records; an unreadable line comes as a RowError, and so does a file that cannot be read further."""
        for file in self.files:
            name, last = file.relative_to(self.root).as_posix(), 0
            try:
                for line, columns in _csv_records(file, self.columns) if self.kind == "csv" else _json_records(file):
                    last = line
                    yield Record(f"{name}:{line}", columns)
            except (OSError, UnicodeError) as error:  # the latter for UTF-16 and UTF-32 only
                why = getattr(error, "strerror", None) or getattr(error, "reason", error)
                reason = f"not readable behind line {last} ({why})"
                yield Record(f"{name}:{last + 1}", RowError("file", reason, "check that the file is there, whole"))

    def image_ref(self, cell: Any, location: str) -> str:
        """Path of the image relative to the data root."""
        return self.images.ref(cell, PurePosixPath(location.rpartition(":")[0]).parent.as_posix())

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of the image."""
        return self.images.read(ref)


def _wide_encoding(file: Path) -> str | None:
    """The encoding that a file's first bytes show, UTF-16 or UTF-32; None for all others."""
    with open(file, "rb") as opened:
        head = opened.read(4)
    if (marked := next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), None)) is not None:
        return marked
    return {b"\0\0": "utf-16-be"}.get(head[::2]) or {b"\0\0": "utf-16-le"}.get(head[1::2])


def _json_records(file: Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    if (encoding := _wide_encoding(file)) is not None:
        with open(file, encoding=encoding, newline="\n") as opened:
            for line, text in enumerate(opened, start=1):
                if text.strip():
                    yield line, _json_object(text)
        return
    with open(file, "rb") as opened:  # bytes, so that one line's bad encoding spoils only that line
        for line, content in enumerate(opened, start=1):
            content = content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content
            if not content.strip():
                continue
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError as error:
                yield line, RowError("line", f"not UTF-8 ({error.reason})", UTF8)
            else:
                yield line, _json_object(text)


def _json_object(text: str) -> dict[str, Any] | RowError:
    try:
        columns = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        return RowError("line", f"not JSON ({error})", "repair the line")
    if isinstance(columns, dict):
        return columns
    return RowError("line", f"expected a JSON object, got {type(columns).__name__}", 'write {"column": "value", ...}')


class _Lines:
    """The lines of a file for a CSV reader, which can be taken back: those of a record that turned out to be none."""

    def __init__(self, opened: TextIO) -> None:
        self._opened = opened
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0  # of the line that was given last

    def __iter__(self) -> Iterator[str]:
        while line := self._again.popleft() if self._again else self._opened.readline():
            self.taken.append(line)
            self.number += 1
            yield line

    def forget(self) -> None:
        """A record is over; its lines are not taken back any more."""
        self.taken.clear()

    def take_back(self) -> int:
        """Give the lines of the present record again, all but its first; returns the first one's number."""
        first = self.number - len(self.taken) + 1
        self._again.extendleft(reversed(self.taken[1:]))
        self.number = first
        self.taken.clear()
        return first


def _csv_records(file: Path, columns: Collection[str | None]) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """Records of a CSV file, by the line in which each ends. columns: those that the header should have.

    A quote that is opened and never closed, or is closed in the middle of a later cell, spoils the record that it
    begins in and no other: reading goes on with the line below.
    """
    wide = _wide_encoding(file)
    encoding, errors = (wide, "strict") if wide else ("utf-8-sig", "surrogateescape")
    with open(file, encoding=encoding, errors=errors, newline="") as opened:
        lines = _Lines(opened)
        delimiter = _delimiter(opened, columns)
        header: list[str] | None = None
        reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
        while True:
            lines.forget()
            try:
                cells = next(reader, None)
                spans = len(lines.taken)
                if cells is None:
                    return
                if header is not None and spans > 1 and len(cells) != len(header):
                    raise csv.Error("a quote is opened and not closed within its record")
            except csv.Error as error:
                first = lines.take_back()
                reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
                yield first, RowError("line", f"not CSV ({error})", "close the quote, or double a quote within a cell")
                if header is None:
                    return
                continue
            if header is None:
                if not cells:
                    continue
                header = [name.strip() for name in cells]
                if twice := [name for name, count in Counter(header).items() if count > 1 and name]:
                    reason = f"the header has {', '.join(map(repr, twice))} more than once"
                    yield lines.number, RowError("line", reason, "give each column its own name")
                    return
            elif len(cells) > len(header):
                reason = f"more cells than the header's {len(header)}"
                yield lines.number, RowError("line", reason, f"quote cells that hold {delimiter!r}")
            elif cells:
                yield lines.number, dict(zip(header, cells + [None] * (len(header) - len(cells)), strict=True))


def _delimiter(opened: TextIO, columns: Collection[str | None]) -> str:
    """The delimiter by which a file's first line has most of the columns, else by which it has most cells.

    The file is at its beginning before and afterwards.
    """
    head = opened.readline()
    opened.seek(0)

    def fit(delimiter: str) -> tuple[int, int, int]:
        cells = [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter), [])]
        return sum(cell in columns for cell in cells), len(cells), -DELIMITERS.index(delimiter)

    return max(DELIMITERS, key=fit)
