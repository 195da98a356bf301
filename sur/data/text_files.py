"""SURD folders, JSON lines and CSV: text files whose rows name image files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sur.config.data import DataConfig
from sur.data.image_folder import ImageFolder
from sur.data.source import Record
from sur.support.errors import RowError


class TextFiles:
    """Rows of JSON lines or CSV files, in the order of the files' names.

    An image's path is relative to the folder of the file that names it. location: `<file>:<line>`.
    """

    def __init__(self, root: Path, files: list[Path], config: DataConfig) -> None:
        self.root = root.absolute()
        self.files = [file.absolute() for file in files]
        self.images = ImageFolder(root, config)

    def records(self) -> Iterator[Record]:
        """All records; an unreadable line comes as a RowError."""
        for file in self.files:
            name = file.relative_to(self.root).as_posix()
            read = _csv_records if file.suffix == ".csv" else _json_records
            for line, columns in read(file):
                yield Record(f"{name}:{line}", columns)

    def image_ref(self, cell: Any, location: str) -> str:
        """Path of the image relative to the data root."""
        return self.images.ref(cell, PurePosixPath(location.rpartition(":")[0]).parent.as_posix())

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of the image."""
        return self.images.read(ref)


def _json_records(file: Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    with open(file, "rb") as opened:  # bytes, so that one line's bad encoding spoils only that line
        for line, content in enumerate(opened, start=1):
            content = content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content
            if not content.strip():
                continue
            try:
                columns = json.loads(content.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield line, RowError("line", f"not UTF-8 ({error.reason})", "save the file as UTF-8")
                continue
            except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
                yield line, RowError("line", f"not JSON ({error})", "repair the line")
                continue
            if isinstance(columns, dict):
                yield line, columns
            else:
                reason = f"expected a JSON object, got {type(columns).__name__}"
                yield line, RowError("line", reason, 'write {"column": "value", ...}')


def _csv_records(file: Path) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
        reader = csv.DictReader(opened, restkey="(more than the header)")
        while True:
            try:
                columns = next(reader, None)
            except csv.Error as error:
                yield reader.line_num, RowError("line", f"not CSV ({error})", "repair the line")
                continue
            if columns is None:
                return
            if reader.restkey in columns:
                reason = f"more cells than the header's {len(reader.fieldnames or [])}"
                yield reader.line_num, RowError("line", reason, "quote cells that hold commas")
            else:
                yield reader.line_num, columns
