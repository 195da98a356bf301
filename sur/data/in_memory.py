"""Rows from a plain Python iterable of dicts."""

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


class _Listed:
    def __init__(self, rows: Iterable[Mapping[str, Any]], config: DataConfig) -> None:
        self.rows = list(rows)
        self.config = config
        self.images = ImageFolder(config.path, config)

    def records(self) -> Iterator[Record]:
        for row, columns in enumerate(self.rows):
            if isinstance(columns, Mapping):
                yield Record(f"#{row}", columns)
            else:
                reason = f"expected a mapping of columns, got {type(columns).__name__}"
                yield Record(f"#{row}", RowError("row", reason, 'give {"column": value, ...}'))

    def image_ref(self, cell: Any, location: str) -> str:
        if image_bytes_in(cell) is not None or isinstance(cell, Image.Image):
            return location
        return self.images.ref(str(cell) if isinstance(cell, Path) else cell)

    def image_bytes(self, ref: str) -> bytes:
        if not ref.startswith("#"):
            return self.images.read(ref)
        cell = self.rows[int(ref[1:])][self.config.image_column or "image"]
        if isinstance(cell, Image.Image):
            made = io.BytesIO()
            cell.save(made, "PNG")
            return made.getvalue()
        return image_bytes_in(cell) or b""


class ListRows(RowSource):
    """Rows given as dicts; an image is bytes, a PIL image, or a path under `root`.

    `columns` are DataConfig's other fields, such as simple_column; image_column defaults to "image".
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], root: Path | str = ".", **columns: Any) -> None:
        config = DataConfig(**{"path": Path(root), "image_column": "image", **columns})
        super().__init__(config, _Listed(rows, config))
