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
from sur.data.tables import embedded, file_ref, image_bytes_in
from sur.support.errors import ConfigError, RowError

PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


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
        return file_ref(self.images.ref(str(cell) if isinstance(cell, Path) else cell))

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of an image in a cell (a PIL image as a file) or of an image file."""
        place, column = embedded(ref), self.config.image_column or "image"
        if place is None:
            return self.images.read(ref)
        cell = self.rows[place[1]].get(column) if place[1] < len(self.rows) else None
        try:
            content = file_of(cell) if isinstance(cell, Image.Image) else image_bytes_in(cell)
        except (OSError, ValueError) as error:  # its file is closed, or cut
            raise RowError(column, f"the image of row {ref} cannot be used ({error})", "give its bytes") from error
        if content is None:
            raise RowError(column, f"row {ref} holds no image any more", "give the rows that were extracted")
        return content


def file_of(image: Image.Image) -> bytes:
    """A PIL image as the bytes of a PNG, or of a TIFF where PNG lacks its mode, such as numbers or CMYK."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if image.mode in PNG_MODES else "TIFF")
    return buffer.getvalue()


class ListRows(RowSource):
    """Rows that a Python program gives as dicts; the way to use rows that are in no file.

        rows = [{"text": "two red cats", "prompt": "2 cats, red fur, 8k", "image": picture}]
        records, quarantined = scan(ListRows(rows), need_image=True)

    An image is bytes, a PIL image, or a path under `root`. `settings` are the other fields of DataConfig, such as
    simple_column; image_column is "image" by default.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], root: Path | str = ".", **settings: Any) -> None:
        config = DataConfig(**{"path": Path(root), "image_column": "image", **settings})
        if config.split is not None or config.format != "auto":
            raise ConfigError("rows from memory have neither split nor format; leave data.split and data.format out")
        super().__init__(config, _DictReader(rows, config))
