"""Parquet files and Hugging Face datasets on disk: tables whose cells may hold the images themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sur.config.data import DataConfig
from sur.data.image_folder import ImageFolder
from sur.data.source import Record
from sur.support.errors import RowError


def image_bytes_in(cell: Any) -> bytes | None:
    """The bytes of the image in a cell, plain or in the {bytes, path} of Hugging Face's Image; None without any."""
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    return bytes(cell) if isinstance(cell, (bytes, bytearray, memoryview)) else None


def path_of(cell: Any) -> Any:
    """The path when the cell names a file: plain, or the `path` of Hugging Face's Image."""
    return cell.get("path") if isinstance(cell, dict) else cell


class ParquetFiles:
    """Rows of Parquet files, in the order of their names; reads one row group at a time.

    location, and reference of an embedded image: `<file>#<row in the file>`.
    """

    def __init__(self, root: Path, files: list[Path], config: DataConfig) -> None:
        self.root = root.absolute()
        self.files = [file.absolute() for file in files]
        self.config = config
        self.images = ImageFolder(root, config)
        self._group: tuple[str, int, list[dict[str, Any]]] = ("", 0, [])

    def records(self) -> Iterator[Record]:
        """All records; a file that cannot be read comes as one RowError."""
        import pyarrow as pa

        for file in self.files:
            name = file.relative_to(self.root).as_posix()
            try:
                for first, count in self._groups(file):
                    rows = self._load(name, first, count)
                    for row, columns in enumerate(rows, start=first):
                        yield Record(f"{name}#{row}", columns)
            except (OSError, pa.ArrowException) as error:
                yield Record(name, RowError("file", f"not readable as Parquet ({error})", "replace the file"))

    def image_ref(self, cell: Any, location: str) -> str:
        """The location for an embedded image, else the path of the file relative to the data root."""
        if image_bytes_in(cell) is not None:
            return location
        return self.images.ref(path_of(cell), PurePosixPath(location.rpartition("#")[0]).parent.as_posix())

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of an embedded image or of an image file."""
        name, mark, row = ref.rpartition("#")
        if not mark or not row.isdecimal() or not name.endswith(".parquet"):
            return self.images.read(ref)
        column = self.config.image_column or "image"
        content = image_bytes_in(self._row(name, int(row)).get(column))
        if content is None:
            raise RowError(column, f"{ref} holds no image any more", "extract again from the changed file")
        return content

    def _row(self, name: str, row: int) -> dict[str, Any]:
        loaded, first, rows = self._group
        if loaded != name or not first <= row < first + len(rows):
            for start, count in self._groups(self.root / name):
                if start <= row < start + count:
                    rows, first = self._load(name, start, count), start
                    break
            else:
                raise RowError("row", f"{name} has no row {row} any more", "extract again from the changed file")
        return rows[row - first]

    def _groups(self, file: Path) -> list[tuple[int, int]]:
        """First row and number of rows of each row group."""
        import pyarrow.parquet as pq

        meta = pq.read_metadata(file)
        counts = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        return [(sum(counts[:i]), count) for i, count in enumerate(counts)]

    def _load(self, name: str, first: int, count: int) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.root / name) as file:
            starts = [start for start, _ in self._groups(self.root / name)]
            index = max(i for i, start in enumerate(starts) if start == first)
            present = file.schema_arrow.names
            needed = [self.config.simple_column, self.config.complex_column, self.config.image_column]
            rows = file.read_row_group(index, columns=[c for c in needed if c in present]).to_pylist()
        self._group = (name, first, rows)
        return rows


class HFDataset:
    """A Hugging Face dataset written by save_to_disk. location and image reference: `#<row>`."""

    def __init__(self, root: Path, config: DataConfig) -> None:
        self.config = config
        self.images = ImageFolder(root, config)
        self._data: Any = None

    def records(self) -> Iterator[Record]:
        """All records, in the dataset's order."""
        for row, columns in enumerate(self._dataset()):
            yield Record(f"#{row}", columns)

    def image_ref(self, cell: Any, location: str) -> str:
        """The location for an embedded image, else the path of the file relative to the data root."""
        return location if image_bytes_in(cell) is not None else self.images.ref(path_of(cell))

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of an embedded image or of an image file."""
        if not ref.startswith("#"):
            return self.images.read(ref)
        column = self.config.image_column or "image"
        content = image_bytes_in(self._dataset()[int(ref[1:])][column])
        if content is None:
            raise RowError(column, f"row {ref} holds no image any more", "extract again from the changed dataset")
        return content

    def _dataset(self) -> Any:
        if self._data is None:
            import datasets
            import pyarrow as pa

            try:
                data: Any = datasets.load_from_disk(str(self.config.path))
            except (OSError, pa.ArrowException) as error:
                reason = f"{self.config.path} is not readable as a dataset on disk ({error})"
                raise RowError("data.path", reason, "write it again with save_to_disk") from error
            if isinstance(data, datasets.DatasetDict):
                split = self.config.split or (next(iter(data)) if len(data) == 1 else None)
                if split not in data:
                    reason = f"it is {split!r}, but {self.config.path} has splits {sorted(data)}"
                    raise RowError("data.split", reason, "name one of them")
                data = data[split]
            needed = (self.config.simple_column, self.config.complex_column, self.config.image_column)
            data = data.select_columns([column for column in needed if column in data.column_names])
            image = self.config.image_column
            if image in data.column_names and isinstance(data.features[image], datasets.Image):
                data = data.cast_column(image, datasets.Image(decode=False))
            self._data = data
        return self._data
