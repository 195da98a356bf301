"""Parquet files and Hugging Face datasets on disk: tables whose cells may hold the images themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sur.config.data import DataConfig
from sur.data.image_folder import ImageFolder
from sur.data.source import Record
from sur.support.errors import RowError

BATCH_ROWS = 64  # of a dataset that are read together
_EMBEDDED = re.compile(r"(?!\./)(?:(?P<file>.*\.parquet))?#(?P<row>[0-9]+)", re.DOTALL | re.IGNORECASE)


def image_bytes_in(cell: Any) -> bytes | None:
    """The bytes of the image in a cell, plain or in the {bytes, path} of Hugging Face's Image; None without any."""
    if isinstance(cell, dict):
        cell = cell.get("bytes")
    return bytes(cell) if isinstance(cell, (bytes, bytearray, memoryview)) else None


def path_of(cell: Any) -> Any:
    """The path when the cell names a file: plain, or the `path` of Hugging Face's Image."""
    return cell.get("path") if isinstance(cell, dict) else cell


def embedded(ref: str) -> tuple[str, int] | None:
    """File ("" for a dataset) and row of the image that a reference `[<file>]#<row>` names; None for a file's path."""
    named = _EMBEDDED.fullmatch(ref)
    return (named["file"] or "", int(named["row"])) if named else None


def file_ref(path: str) -> str:
    """The reference of an image file, which no image in a cell has: `./#1` for a file that is called #1."""
    return f"./{path}" if embedded(path) else path


class ParquetFiles:
    """Rows of Parquet files, in the order of their names; reads one row group at a time.

    location, and reference of an embedded image: `<file>#<row in the file>`.
    """

    def __init__(self, root: Path, files: list[Path], config: DataConfig) -> None:
        self.root = root.absolute()
        self.files = [file.absolute() for file in files]
        self.config = config
        self.images = ImageFolder(root, config)
        self._group: tuple[str, int, list[Mapping[str, Any] | RowError]] = ("", 0, [])

    def records(self) -> Iterator[Record]:
        """All records; a file, or a group of its rows, that cannot be read comes as one RowError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in self.files:
            name = file.relative_to(self.root).as_posix()
            try:
                present = tuple(pq.read_schema(file).names)
                groups = self._groups(file)
            except (OSError, pa.ArrowException) as error:
                yield Record(name, RowError("file", f"not readable as Parquet ({error})", "replace the file"))
                continue
            for first, count in groups:
                try:
                    rows = self._load(name, first, count)
                except (OSError, pa.ArrowException) as error:
                    reason = f"its {count} rows from {first} on are not readable as Parquet ({error})"
                    yield Record(f"{name}#{first}", RowError("file", reason, "replace the file"))
                    continue
                for row, columns in enumerate(rows, start=first):
                    yield Record(f"{name}#{row}", columns, present)

    def image_ref(self, cell: Any, location: str) -> str:
        """The location for an embedded image, else the path of the file relative to the data root."""
        if image_bytes_in(cell) is not None:
            return location
        folder = PurePosixPath(location.rpartition("#")[0]).parent.as_posix()
        return file_ref(self.images.ref(path_of(cell), folder))

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of an embedded image or of an image file."""
        place = embedded(ref)
        if place is None or not place[0]:
            return self.images.read(ref)
        column = self.config.image_column or "image"
        try:
            content = image_bytes_in(self._row(*place).get(column))
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise RowError(column, f"cannot read {ref} ({error})", "check that the file is there, whole") from error
        if content is None:
            raise RowError(column, f"{ref} holds no image any more", "extract again from the changed file")
        return content

    def _row(self, name: str, row: int) -> Mapping[str, Any]:
        loaded, first, rows = self._group
        if loaded != name or not first <= row < first + len(rows):
            for start, count in self._groups(self.root / name):
                if start <= row < start + count:
                    rows, first = self._load(name, start, count), start
                    break
            else:
                raise RowError("row", f"{name} has no row {row} any more", "extract again from the changed file")
        columns = rows[row - first]
        if isinstance(columns, RowError):
            raise columns
        return columns

    def _groups(self, file: Path) -> list[tuple[int, int]]:
        """First row and number of rows of each row group."""
        import pyarrow.parquet as pq

        meta = pq.read_metadata(file)
        counts = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        return [(sum(counts[:i]), count) for i, count in enumerate(counts)]

    def _load(self, name: str, first: int, count: int) -> list[Mapping[str, Any] | RowError]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.root / name, page_checksum_verification=True) as file:
            starts = [start for start, _ in self._groups(self.root / name)]
            index = max(i for i, start in enumerate(starts) if start == first)
            present = file.schema_arrow.names
            rows = rows_of(file.read_row_group(index, columns=[c for c in _needed(self.config) if c in present]))
        self._group = (name, first, rows)
        return rows


class HFDataset:
    """A Hugging Face dataset written by save_to_disk. location and image reference: `#<row>`."""

    def __init__(self, root: Path, config: DataConfig) -> None:
        self.config = config
        self.images = ImageFolder(root, config)
        self._data: Any = None
        self._names: tuple[str, ...] = ()

    def records(self) -> Iterator[Record]:
        """All records, in the dataset's order; a run of rows that cannot be read comes as one RowError."""
        import pyarrow as pa

        data = self._dataset()
        for first in range(0, len(data), BATCH_ROWS):
            try:
                rows = rows_of(data[first : first + BATCH_ROWS])
            except (OSError, pa.ArrowException) as error:
                reason = f"{BATCH_ROWS} rows from {first} on are not readable ({error})"
                yield Record(f"#{first}", RowError("file", reason, "write the dataset again with save_to_disk"))
                continue
            for row, columns in enumerate(rows, start=first):
                yield Record(f"#{row}", columns, self._names)

    def image_ref(self, cell: Any, location: str) -> str:
        """The location for an embedded image, else the path of the file relative to the data root."""
        return location if image_bytes_in(cell) is not None else file_ref(self.images.ref(path_of(cell)))

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of an embedded image or of an image file."""
        place = embedded(ref)
        if place is None:
            return self.images.read(ref)
        column, data = self.config.image_column or "image", self._dataset()
        try:
            (columns,) = rows_of(data[place[1] : place[1] + 1]) if place[1] < len(data) else ({},)
        except (OSError, ValueError) as error:
            raise RowError(column, f"cannot read row {ref} ({error})", "check that the dataset is whole") from error
        content = image_bytes_in(columns.get(column)) if isinstance(columns, Mapping) else None
        if content is None:
            raise RowError(column, f"row {ref} holds no image any more", "extract again from the changed dataset")
        return content

    def _dataset(self) -> Any:
        """The dataset, whose slices are Arrow tables of the needed columns."""
        if self._data is None:
            import datasets
            import pyarrow as pa

            try:
                data: Any = datasets.load_from_disk(str(self.config.path))
            except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
                reason = f"{self.config.path} is not readable as a dataset on disk ({error})"
                raise RowError("data.path", reason, "write it again with save_to_disk") from error
            if isinstance(data, datasets.DatasetDict):
                split = self.config.split or (next(iter(data)) if len(data) == 1 else None)
                if split not in data:
                    reason = f"it is {split!r}, but {self.config.path} has splits {sorted(data)}"
                    raise RowError("data.split", reason, "name one of them")
                data = data[split]
            elif self.config.split not in (None, str(data.split)):
                reason = f"it is {self.config.split!r}, but {self.config.path} is one dataset (split {data.split})"
                raise RowError("data.split", reason, "leave it out")
            self._names = tuple(data.column_names)
            needed = [column for column in _needed(self.config) if column in self._names]
            data = data.select_columns(needed or list(self._names[:1]))  # without a column it would have no rows
            image = self.config.image_column
            if image in data.column_names and isinstance(data.features[image], datasets.Image):
                data = data.cast_column(image, datasets.Image(decode=False))
            self._data = data.with_format("arrow")
        return self._data


def rows_of(table: Any) -> list[Mapping[str, Any] | RowError]:
    """Rows of an Arrow table; a row with a string that is not UTF-8, as another encoding's letters, as a RowError."""
    try:
        return table.to_pylist()
    except UnicodeDecodeError:
        return [_row_of(table, row) for row in range(len(table))]


def _row_of(table: Any, row: int) -> dict[str, Any] | RowError:
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = table[name][row].as_py()
        except UnicodeDecodeError as error:
            return RowError(name, f"not UTF-8 ({error.reason})", "write the table's strings as UTF-8")
    return columns


def _needed(config: DataConfig) -> tuple[str | None, ...]:
    """The columns that are read."""
    return (config.simple_column, config.complex_column, config.image_column)
