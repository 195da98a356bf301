"""Rows, and the source that gives them, every one checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sur.config.data import DataConfig
from sur.data.quarantine import Quarantined
from sur.data.visible import is_visible
from sur.support.errors import RowError


@dataclass(frozen=True)
class Row:
    """One example: simple narrative prompt, complex prompt ("" none), image reference ("" none)."""

    simple: str
    complex: str = ""
    image: str = ""
    position: int = -1
    location: str = ""


class Record(NamedTuple):
    """A row as a file holds it: its place, and its columns or the error that made it unreadable.

    names: of all columns of the file where `columns` has only some; empty: `columns` has all.
    """

    location: str
    columns: Mapping[str, Any] | RowError
    names: Sequence[str] = ()


class RecordReader(Protocol):
    """Reads one format: records in file order, and the images that they name or hold."""

    def records(self) -> Iterator[Record]:
        """All records, in a fixed order; an unreadable one as a RowError, never raised."""
        ...

    def image_ref(self, cell: Any, location: str) -> str:
        """The reference under which `image_bytes` finds a record's image.

        Raises: RowError when the cell names no image inside the data root.
        """
        ...

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of an image.

        Raises: RowError when it is missing, too large or outside the data root.
        """
        ...


class RowSource:
    """The rows of one reader in file order, every one checked; a bad one comes as Quarantined."""

    def __init__(self, config: DataConfig, reader: RecordReader) -> None:
        self.config = config
        self._reader = reader

    def __iter__(self) -> Iterator[Row | Quarantined]:
        for position, record in enumerate(self._reader.records()):
            if self.config.limit is not None and position >= self.config.limit:
                return
            location = record.location
            try:
                yield self._row(position, record)
            except RowError as error:
                yield Quarantined(position, location, error.field, error.reason, error.remedy)

    def image_bytes(self, ref: str) -> bytes:
        """Bytes of the image that a row's `image` names; never a file outside the data root.

        Raises: RowError when it is missing, too large or outside the data root.
        """
        return self._reader.image_bytes(ref)

    def _row(self, position: int, record: Record) -> Row:
        config, location, columns = self.config, record.location, record.columns
        if isinstance(columns, RowError):
            raise columns
        simple = self._prompt(record, config.simple_column, needed=True)
        needed = config.complex_column is not None and not config.allow_unpaired
        complex_ = self._prompt(record, config.complex_column, needed) if config.complex_column else ""
        cell = columns.get(config.image_column) if config.image_column else None
        ref = "" if _is_nothing(cell) else self._reader.image_ref(cell, location)
        return Row(simple, complex_, ref, position, location)

    def _prompt(self, record: Record, column: str, needed: bool) -> str:
        columns = record.columns
        assert not isinstance(columns, RowError)
        if column not in columns and needed:
            present = ", ".join(sorted(map(str, record.names or columns))) or "none"
            raise RowError(column, f"missing column (there are: {present})", "add it, or name another in data.*_column")
        value = columns.get(column)
        if value is not None and not isinstance(value, str) and not _is_nothing(value):
            reason = f"expected a string, got {type(value).__name__} {str(value)[:40]!r}"
            raise RowError(column, reason, "write the prompt as a string")
        text = value.strip() if isinstance(value, str) else ""
        unseen = bool(text) and not is_visible(text)
        if (unseen or not text) and needed:
            remedy = "write a prompt or remove the row"
            if column == self.config.complex_column:
                remedy += ", or set data.allow_unpaired=true to keep rows without complex prompt"
            raise RowError(column, "empty prompt" + ": its characters are all invisible" * unseen, remedy)
        if unseen:
            return ""
        if len(text) > self.config.max_prompt_chars:
            reason = f"{len(text)} characters, more than the limit of {self.config.max_prompt_chars}"
            raise RowError(column, reason, "shorten it or raise data.max_prompt_chars")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(column, f"not valid Unicode ({error.reason})", "repair the file's encoding") from error
        return text


def _is_nothing(cell: Any) -> bool:
    """Whether a cell is empty: None, "", or the NaN that data frames write for a missing string."""
    return cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and cell != cell)
