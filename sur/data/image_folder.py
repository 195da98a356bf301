"""Image files under a data root: found with or without extension, never outside."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from sur.config.data import DataConfig
from sur.support.errors import RowError

LONGEST_NAME = 250  # bytes; file systems take 255, and an extension may be added
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class ImageFolder:
    """Finds and reads the images that rows name by paths relative to the file that holds the rows."""

    def __init__(self, root: Path, config: DataConfig) -> None:
        self.root = root.resolve()
        self.config = config

    def ref(self, cell: Any, base: str = "") -> str:
        """Path of an image relative to the data root, with the extension that SURD's file names may lack.

        Raises: RowError when it leaves the root, does not exist, or could be one of several files.
        """
        if not isinstance(cell, str):
            reason = f"expected a path, got {type(cell).__name__}"
            raise RowError(self._column, reason, "write the image's path as a string")
        named = self._inside(str(PurePosixPath(base) / cell.strip().replace("\\", "/")), cell)
        if named.is_file():
            return self._relative(named)
        files = [
            file
            for suffix in SUFFIXES
            for file in {
                named.with_name(named.name + suffix),
                named.with_name(named.name + suffix.upper()),
            }
            if file.is_file()
        ]
        if not files:
            reason = f"there is no image {cell!r} in {self.root / base}, with or without extension"
            raise RowError(self._column, reason, "put the file there, correct the path, or remove the row")
        if len(files) > 1:
            names = ", ".join(sorted(file.name for file in files))
            raise RowError(self._column, f"{cell!r} could be any of {names}", "write the extension out")
        return self._relative(files[0])

    def read(self, ref: str) -> bytes:
        """Bytes of an image.

        Raises: RowError when it is missing, too large or outside the root.
        """
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

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _inside(self, path: str, cell: str) -> Path:
        """The path under the root, refused when its words or its links lead outside."""
        remedy = "move the image under the data root and name it relative to the rows' file"
        pure = PurePosixPath(path)
        if "\0" in path or any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in pure.parts):
            raise RowError(self._column, f"{cell[:80]!r} is not a path", "correct the path, or data.image_column")
        if pure.is_absolute() or ".." in pure.parts or (pure.parts and ":" in pure.parts[0]):
            raise RowError(self._column, f"{cell!r} leaves the data root {self.root}", remedy)
        file = self.root / pure
        try:
            leaves = not file.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError) as error:
            raise RowError(self._column, f"{cell!r} is not a usable path ({error})", "correct the path") from error
        if leaves and not self.config.allow_outside_links:
            remedy += ", or set data.allow_outside_links=true if you trust its links"
            raise RowError(self._column, f"{cell!r} is a link out of the data root {self.root}", remedy)
        return file
