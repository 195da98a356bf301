"""Image files under a data root: found with or without extension, however their names are composed, never outside."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sur.config.data import DataConfig
from sur.support.errors import RowError

# Endings of the formats that sur.support.images reads.
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".avifs", ".gif", ".bmp"),
    *(".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
)


class ImageFolder:
    """Finds and reads the images that rows name by paths relative to the file that holds the rows."""

    def __init__(self, root: Path, config: DataConfig) -> None:
        self.root = root.resolve()
        self.config = config
        self._listings: dict[Path, _Listing] = {}

    def ref(self, cell: Any, base: str = "") -> str:
        """Path of an image relative to the data root, with the extension that SURD's file names may lack.

        An absolute path is taken if it lies inside the root. A name that differs from the file's only in how accents
        are composed (NFC or NFD, as macOS and Linux write them) is found.

        Raises: RowError when it leaves the root, does not exist, or could be one of several files.
        """
        if not isinstance(cell, str):
            reason = f"expected a path, got {type(cell).__name__}"
            raise RowError(self._column, reason, "write the image's path as a string")
        with self._usable(cell):
            written = cell.strip().replace("\\", "/")
            pure = PurePosixPath(os.path.normpath(PurePosixPath(base) / written))
            if pure.is_absolute():
                pure = self._inside_root(pure) or pure
            named = self._inside(pure.as_posix(), cell)
            if _is_file(named):
                return self._relative(named)
            return self._relative(self._only_file(named, cell, base))

    def read(self, ref: str) -> bytes:
        """Bytes of an image.

        Raises: RowError when it is missing, too large or outside the root.
        """
        with self._usable(ref):
            file = self._inside(ref, ref)
        try:
            size = file.stat().st_size
            if size > self.config.max_image_bytes:
                reason = f"{size} bytes, more than the limit of {self.config.max_image_bytes}"
                raise RowError(self._column, reason, "shrink the image or raise data.max_image_bytes")
            return file.read_bytes()
        except OSError as error:
            reason = f"cannot read {ref!r} ({error.strerror or error})"
            raise RowError(self._column, reason, "check that the file exists and is readable") from error

    @property
    def _column(self) -> str:
        return self.config.image_column or "image"

    @contextmanager
    def _usable(self, cell: str) -> Iterator[None]:
        """Turns what the file system raises for a path into a RowError: too long, a folder without permission, ..."""
        try:
            yield
        except RowError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # a NUL, a lone surrogate; a circle of links
            why = getattr(error, "strerror", None) or error
            reason = f"{cell[:80]!r} is not a path that can be looked at ({why})"
            remedy = "correct the path, the folder's permissions, or data.image_column"
            raise RowError(self._column, reason, remedy) from error

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _inside_root(self, absolute: PurePosixPath) -> PurePosixPath | None:
        """An absolute path relative to the root, None when it is outside; either may be written through links."""
        for root in (self.root, self.config.path.absolute()):
            if absolute.is_relative_to(root):
                return absolute.relative_to(root)
        parent = Path(absolute).parent.resolve()
        if parent.is_relative_to(self.root):
            return PurePosixPath(parent.relative_to(self.root)) / absolute.name
        return None

    def _inside(self, path: str, cell: str) -> Path:
        """The path under the root, refused when its words or its links lead outside."""
        remedy = "move the image under the data root and name it relative to the rows' file"
        pure = PurePosixPath(path)
        first = pure.parts[0] if pure.parts else ""
        drive = first.endswith(":") or (os.name == "nt" and ":" in first)  # elsewhere a name may hold colons
        if pure.is_absolute() or ".." in pure.parts or drive:
            raise RowError(self._column, f"{cell!r} leaves the data root {self.root}", remedy)
        file = self.root / pure
        if not file.resolve().is_relative_to(self.root) and not self.config.allow_outside_links:
            remedy += ", or set data.allow_outside_links=true if you trust its links"
            raise RowError(self._column, f"{cell!r} is a link out of the data root {self.root}", remedy)
        return file

    def _only_file(self, named: Path, cell: str, base: str) -> Path:
        """The one image that a path without extension, or with otherwise composed accents, stands for."""
        folder = self.root
        for part in named.parent.relative_to(self.root).parts:
            like = self._listing(folder).names.get(_composed(part), [])
            folder = folder / (part if part in like or len(like) != 1 else like[0])
        listing, name = self._listing(folder), _composed(named.name)
        others = listing.stems.get(name, [])
        pictures = [other for other in others if PurePosixPath(other).suffix.lower() in SUFFIXES]
        same_name = [folder / like for like in listing.names.get(name, []) if _is_file(folder / like)]
        files = same_name or [folder / picture for picture in pictures if _is_file(folder / picture)]
        if not files:
            near = f"; {', '.join(others)} is of no format that is read" if others else ""
            reason = f"there is no image {cell!r} in {self.root / base}, with or without extension{near}"
            raise RowError(self._column, reason, "put the file there, correct the path, or remove the row")
        if len(files) > 1:
            names = ", ".join(sorted(file.name for file in files))
            raise RowError(self._column, f"{cell!r} could be any of {names}", "write the extension out")
        return self._inside(self._relative(files[0]), cell)

    def _listing(self, folder: Path) -> _Listing:
        """What is in a folder, read once, since a file of rows names many files of one folder."""
        if folder not in self._listings:
            listing = _Listing({}, {})
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
                normal = _composed(name)
                listing.names.setdefault(normal, []).append(name)
                listing.stems.setdefault(normal.rpartition(".")[0], []).append(name)
            self._listings[folder] = listing
        return self._listings[folder]


class _Listing(NamedTuple):
    """Entries of a folder by their composed name, and by what of it comes before the extension."""

    names: dict[str, list[str]]
    stems: dict[str, list[str]]


def _composed(name: str) -> str:
    """A name with accents composed (NFC), as in most texts; macOS gives files decomposed names (NFD)."""
    return unicodedata.normalize("NFC", name)


def _is_file(path: Path) -> bool:
    """Whether there is a file. Raises: OSError when that cannot be told: no permission, a name too long."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
