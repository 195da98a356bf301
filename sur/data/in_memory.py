"""Rows from memory: any Python iterable of dicts, for programs that have their rows already."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from sur.config.data import DataConfig
from sur.data.image_folder import ImageFolder
from sur.data.source import Record, RowSource
from sur.data.tables import image_bytes_in
from sur.support.errors import RowError


class _DictReader:
    """Reads records from a list of mappings; an image in a cell is named by its row, `#<row>`."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], config: DataConfig) -> None:
        self.rows = list(rows)
        self.config = config
        self.images = ImageFolder(config.path, config)

    def records(self) -> Iterator[Record]:
        """All records, in the order of the list."""
        for row, columns in enumerate(self.rows):
            if isinstance(columns, Mapping):
                yield Record(f"#{row}", columns)
            else:
                reason = f"expected a mapping of columns, got {type(columns).__name__}"
                yield Record(f"#{row}", RowError("row", reason, 'give {"column": value, ...}'))

    def image_ref(self, cell: Any, location: str) -> str:
        """The location for an image in the cell, else the path of the file relative to the root."""
        if image_bytes_in(cell) is not None or isinstance(cell, Image.Image):
            return location
        return self.images.ref(str(cell) if isinstance(cell, Path) else cell)

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of an image in a cell (a PIL image as PNG) or of an image file."""
        if not ref.startswith("#"):
            return self.images.read(ref)
        cell = self.rows[int(ref[1:])][self.config.image_column or "image"]
        if isinstance(cell, Image.Image):
            buffer = io.BytesIO()
            cell.save(buffer, "PNG")
            return buffer.getvalue()
        return image_bytes_in(cell) or b""


class ListRows(RowSource):
    """Rows that a Python program gives as dicts; the way to use rows that are in no file.

        rows = [{"text": "two red cats", "prompt": "2 cats, red fur, 8k", "image": picture}]
        records, quarantined = scan(ListRows(rows), need_image=True)

    An image is bytes, a PIL image, or a path under `root`. `settings` are the other fields of DataConfig, such as
    simple_column; image_column is "image" by default.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], root: Path | str = ".", **settings: Any) -> None:
        config = DataConfig(**{"path": Path(root), "image_column": "image", **settings})
        super().__init__(config, _DictReader(rows, config))
