"""The source of a build: a folder of pictures or a file of prompts, read as candidates for rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sur.config.curation import SourceConfig
from sur.config.data import DataConfig
from sur.data import Quarantined, Row, RowSource, open_rows
from sur.data.image_folder import SUFFIXES, ImageFolder
from sur.data.source import Record, RecordReader
from sur.support.errors import ConfigError, NotFound, RowError


@dataclass(frozen=True)
class RowCandidate:
    """A picture or a prompt of the source that may become a row; a model has to write the texts that are empty.

    picture: reference for `Source.picture_bytes`, "" for none. sha256, extension: those of the picture's bytes.
    facts: what is known of the candidate's origin, for the provenance.
    """

    position: int
    location: str
    picture: str = ""
    simple: str = ""
    complex: str = ""
    negative: str = ""
    sha256: str = ""
    extension: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Candidates in a fixed order, and their pictures."""

    def candidates(self) -> Iterator[RowCandidate | Quarantined]:
        """All candidates with their texts as written; an unreadable one comes as Quarantined."""
        ...

    def picture_bytes(self, ref: str) -> bytes:
        """Bytes of a picture. Raises: RowError when it is missing, too large or outside the source's folder."""
        ...


def open_source(config: SourceConfig) -> Source:
    """The source of a configuration. Raises: NotFound when it is not there or holds nothing usable."""
    if config.pictures is not None:
        return PictureFolder(config)
    return PromptRows(config)


class PictureFolder:
    """The pictures of a folder and its subfolders, sorted by name; hidden files and folders are skipped."""

    def __init__(self, config: SourceConfig) -> None:
        if not config.path.is_dir():
            raise NotFound(f"source.pictures is {config.path}, which is no folder; correct it")
        self.root = config.path.resolve()
        data = DataConfig(path=self.root, max_image_bytes=config.max_image_bytes)
        self._images = ImageFolder(self.root, data)

    def candidates(self) -> Iterator[RowCandidate | Quarantined]:
        """One candidate a file with a picture's ending; a link that leads out of the folder is quarantined."""
        files = (file for file in self.root.rglob("*") if file.suffix.lower() in SUFFIXES)
        paths = (file.relative_to(self.root) for file in files if file.is_file() or file.is_symlink())
        names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
        for position, name in enumerate(names):
            printable = name.encode("utf-8", "backslashreplace").decode()
            try:
                if printable != name:
                    raise RowError("file_name", "the file's name is not valid Unicode", "rename the file")
                yield RowCandidate(position, name, picture=self._images.ref(name))
            except RowError as error:
                yield Quarantined(position, printable, error.field, error.reason, error.remedy)

    def picture_bytes(self, ref: str) -> bytes:
        """Bytes of a picture of the folder."""
        return self._images.read(ref)


class PromptRows:
    """The prompts of a text file, or of anything that `sur.data` reads."""

    def __init__(self, config: SourceConfig) -> None:
        self._holds = config.holds
        data = DataConfig(
            path=config.path,
            simple_column=config.prompt_column,
            complex_column=None,
            image_column=config.picture_column,
            max_image_bytes=config.max_image_bytes,
        )
        if config.path.suffix == ".txt":
            if config.picture_column is not None:
                raise ConfigError("source.picture_column: a .txt file has no columns; use .jsonl or .csv")
            if not config.path.is_file():
                raise NotFound(f"source.prompts is {config.path}, which does not exist; correct it")
            self._rows = RowSource(data, Lines(config.path, config.prompt_column))
        else:
            self._rows = open_rows(data, "source.prompts")

    def candidates(self) -> Iterator[RowCandidate | Quarantined]:
        """One candidate a row."""
        for row in self._rows:
            if isinstance(row, Row):
                simple, complex_ = (row.simple if self._holds == side else "" for side in ("simple", "complex"))
                yield RowCandidate(row.position, row.location, row.image, simple, complex_)
            else:
                yield row

    def picture_bytes(self, ref: str) -> bytes:
        """Bytes of a picture that a row names or holds."""
        return self._rows.image_bytes(ref)


class Lines(RecordReader):
    """A text file of one prompt a line; empty lines are skipped. location: `<file>:<line>`."""

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column

    def records(self) -> Iterator[Record]:
        """The lines that are not empty."""
        with open(self.path, "rb") as opened:
            for number, line in enumerate(opened, start=1):
                location = f"{self.path.name}:{number}"
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    yield Record(location, RowError("line", f"not UTF-8 ({error.reason})", "save the file as UTF-8"))
                    continue
                if text:
                    yield Record(location, {self.column: text})

    def image_ref(self, cell: Any, location: str) -> str:
        """Raises RowError: lines name no pictures."""
        raise RowError("image", "a .txt file names no pictures", "use .jsonl or .csv")

    def image_bytes(self, ref: str) -> bytes:
        """Raises RowError: lines name no pictures."""
        raise RowError("image", "a .txt file names no pictures", "use .jsonl or .csv")
