"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path beside `path` to write a file to; at the end of the block it takes the place of `path`, all or nothing.

    The folder is made where there is none. When the block raises, `path` is as it was and nothing is left behind.
    durable: the file survives a power cut once the block is over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with named_errors(path, partial):
            yield partial
            if durable:
                sync(partial)
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


@contextmanager
def named_errors(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Have an OSError of the block that names no file, or the file beside it, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, partial and str(partial)):
            error.filename = str(path)
        raise


@contextmanager
def replacing_folder(path: Path, durable: bool = False) -> Iterator[Path]:
    """An empty folder beside `path` to fill; at the end of the block it takes the place of `path`.

    When the block raises, `path` is as it was and nothing is left behind. The folder beside it has the same name in
    every process, so that the next writer clears away what a killed one left. An older `path` is removed just before
    the new one takes its name.
    durable: the folder and every file in it survive a power cut once the block is over.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if durable:
            for entry in [*partial.rglob("*"), partial]:
                sync(entry)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if durable:
        sync(path.parent)


def file_lines(path: Path, errors: str = "strict") -> list[str]:
    """The lines of a text file (UTF-8), without their ends; the last one is what follows the last newline, if anything.

    `str.splitlines` would also cut at U+2028, U+0085 and other characters that stand inside JSON and prompts.
    errors: as for `bytes.decode`.
    """
    lines = path.read_bytes().decode("utf-8-sig", errors).split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def sync(path: Path) -> None:
    """Make a file, or renames and removals in a folder, durable. Windows has no such call for folders."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, durable: bool = False) -> Path:
    """Write a text file (UTF-8) in place of an older one, all or nothing; returns its path."""
    return write_bytes(path, text.encode(), durable)


def write_bytes(path: Path, content: bytes, durable: bool = False) -> Path:
    """Write a file in place of an older one, all or nothing; returns its path."""
    with replacing(path, durable) as partial:
        partial.write_bytes(content)
    return path


def clear_partials(folder: Path, inner: bool = False) -> None:
    """Remove what killed processes left of `replacing` in a folder; `inner`: in the folders inside it too."""
    for partial in folder.rglob(".*.partial") if inner else folder.glob(".*.partial"):
        pid = partial.name.removesuffix(".partial").rpartition(".")[2]
        if pid.isdecimal() and partial.is_file() and not _runs(int(pid)):
            partial.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    """Whether a process of this machine has a number; where that cannot be told, it has."""
    if pid == os.getpid():
        return False  # an earlier process had the same number: this one is writing nothing yet
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
