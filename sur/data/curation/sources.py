"""The source of a build: a folder of pictures or a file of prompts, read as candidates for rows."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sur.config.curation import SourceConfig
from sur.config.data import DataConfig
from sur.data import Quarantined, Row, RowSource, open_rows
from sur.data.image_folder import SUFFIXES, ImageFolder
from sur.data.source import Record, RecordReader
from sur.support.errors import ConfigError, NotFound, RowError

MORE_ENDINGS = (".jpe", ".jfif", ".avif", ".heic", ".heif", ".jxl")  # of pictures; Pillow reads some of them
CAPTION_ENDINGS = (".txt", ".caption")  # of files beside pictures, as trainers lay them out
LONGEST_CAPTION = 1_000_000  # bytes; more is no caption
HEAD_BYTES = 32  # of a file, that tell its format
_SIGNATURES = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\0\0\0\x0cjP  ", b"\xffO\xffQ", b"8BPS"),  # JPEG XL, JPEG 2000, Photoshop
)
_BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
_FTYP_BRANDS = (b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_PNM = re.compile(rb"P[1-7Ff]\s+[\d#W]")


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

    @property
    def passed_over(self) -> dict[str, int]:
        """Number of files that the source passed over, by their kind."""
        ...


def open_source(config: SourceConfig) -> Source:
    """The source of a configuration. Raises: NotFound when it is not there or holds nothing usable."""
    if config.pictures is not None:
        return PictureFolder(config)
    return PromptRows(config)


class PictureFolder:
    """The pictures of a folder and its subfolders, sorted by name. Whether a file is one is told by its content.

    `passed_over` counts the other files by their ending once `candidates` has given all, and hidden files and folders.
    """

    def __init__(self, config: SourceConfig) -> None:
        if not config.path.is_dir():
            raise NotFound(f"source.pictures is {config.path}, which is no folder; correct it")
        self.root = config.path.resolve()
        data = DataConfig(path=self.root, max_image_bytes=config.max_image_bytes)
        self._images = ImageFolder(self.root, data)
        self._passed_over: Counter[str] = Counter()
        self._side = config.captions_beside
        self._captions: set[Path] = set()

    @property
    def passed_over(self) -> dict[str, int]:
        """Number of files that are neither pictures nor captions that were read, by their ending."""
        left = self._passed_over - Counter(file.suffix.lower() for file in self._captions)
        return dict(sorted(left.items()))

    def candidates(self) -> Iterator[RowCandidate | Quarantined]:
        """One candidate a picture; what cannot be looked at, and links that lead out of the folder, are quarantined."""
        self._passed_over.clear()
        found: list[tuple[str, RowError | None]] = []

        def refused(error: OSError) -> None:
            reason = f"the folder cannot be read ({error.strerror or error})"
            found.append((self._name(str(error.filename)), RowError("file_name", reason, "give the right to read it")))

        for folder, folders, files in os.walk(self.root, onerror=refused):
            for name in [*folders, *files]:
                path = os.path.join(folder, name)
                is_folder = name in folders
                if name.startswith("."):
                    self._passed_over["hidden folders" if is_folder else "hidden files"] += 1
                elif is_folder and os.path.islink(path):
                    remedy = "put the folder itself there, or name it as source.pictures of a build of its own"
                    found.append((self._name(path), RowError("file_name", "links to folders are not followed", remedy)))
                elif not is_folder:
                    try:
                        if self._look(path):
                            found.append((self._name(path), None))
                    except RowError as error:
                        found.append((self._name(path), error))
            folders[:] = [name for name in folders if not name.startswith(".")]
        for position, (name, error) in enumerate(sorted(found, key=lambda entry: entry[0])):
            printable = name.encode("utf-8", "backslashreplace").decode()
            try:
                if error is not None:
                    raise error
                if printable != name:
                    raise RowError("file_name", "the file's name is not valid Unicode", "rename the file")
                yield self._with_caption(RowCandidate(position, name, picture=self._images.ref(name)))
            except RowError as refusal:
                yield Quarantined(position, printable, refusal.field, refusal.reason, refusal.remedy)

    def picture_bytes(self, ref: str) -> bytes:
        """Bytes of a picture of the folder."""
        return self._images.read(ref)

    def _with_caption(self, candidate: RowCandidate) -> RowCandidate:
        """The candidate with the caption in a file beside its picture. Raises: RowError for one that cannot be read."""
        if self._side == "ignored":
            return candidate
        picture = self.root / candidate.picture
        for file in (
            path for ending in CAPTION_ENDINGS for path in (picture.with_suffix(ending), Path(f"{picture}{ending}"))
        ):
            if not file.is_file():
                continue
            try:
                with open(file, "rb") as opened:
                    text = opened.read(LONGEST_CAPTION).decode("utf-8-sig").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = f"its caption {file.name} cannot be read ({error})"
                raise RowError("caption", reason, "save the caption as UTF-8, or remove it") from error
            self._captions.add(file)
            facts = {"caption": {"file": file.relative_to(self.root).as_posix()}}
            if self._side == "simple":
                return replace(candidate, simple=" ".join(text.split()), facts=facts)
            return replace(candidate, complex=text, facts=facts)
        return candidate

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def _look(self, path: str) -> bool:
        """Whether a file is a picture; others are counted. Raises: RowError for one that cannot be read."""
        ending = os.path.splitext(path)[1].lower()
        if ending in SUFFIXES or ending in MORE_ENDINGS:
            return True  # a damaged one is to be named
        try:
            if stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
                with open(path, "rb") as opened:
                    if is_picture(opened.read(HEAD_BYTES)):
                        return True
        except OSError as error:
            reason = f"it cannot be read ({error.strerror or error})"
            raise RowError("file_name", reason, "check it, or remove it") from error
        self._passed_over[ending or "no ending"] += 1
        return False


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a picture, of a format that is read here or of another."""
    if head.startswith(b"BM"):
        return head[14:18] in _BMP_HEADERS
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in _FTYP_BRANDS
    return head.startswith(_SIGNATURES) or _PNM.match(head) is not None


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

    @property
    def passed_over(self) -> dict[str, int]:
        """None: every row is a candidate."""
        return {}

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
