"""A store on a local disk: files are published atomically, and locks die with their holder."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import stat
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from sur.cache.errors import CacheError, CorruptStore, NotWritable
from sur.cache.storage.durable import PARTIAL, durable_file, make_durable, make_folder
from sur.cache.storage.keys import parse_key
from sur.cache.storage.refusals import explained, translated

T = TypeVar("T")
_NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux has it
_PIECES = 1024  # written in one call, the most that Linux and macOS take


class LocalFile:
    """An open file, read by position: as fast as a memory map, but a read error does not kill the process."""

    def __init__(self, path: Path, scattered: bool = False) -> None:
        self.path = path
        try:
            self._descriptor = _open_file(path)
        except OSError as error:
            raise error if isinstance(error, FileNotFoundError) else translated(error, path) from error
        # Not by __del__: at the interpreter's end it finds no module `os` any more.
        weakref.finalize(self, os.close, self._descriptor).atexit = False
        self.size = os.fstat(self._descriptor).st_size
        if scattered:  # the system reads nothing ahead
            self._advise(0, 0, "POSIX_FADV_RANDOM")

    def read_now(self, target: np.ndarray, offset: int) -> bool:
        """Fill `target` from `offset` on if the system holds the bytes in memory; else have it fetch them."""
        with suppress(OSError):  # the bytes are not in memory, or the file system cannot tell
            if _NOWAIT is not None and os.preadv(self._descriptor, [target.data], offset, _NOWAIT) == target.nbytes:
                return True
        self._advise(offset, target.nbytes, "POSIX_FADV_WILLNEED")
        return False

    def read_into(self, target: np.ndarray, offset: int) -> bool:
        """Fill `target` from `offset` on; returns True. A single system call reads at most 2 GiB."""
        try:
            done = os.preadv(self._descriptor, [target.data], offset)
            while done < target.nbytes:
                read = os.preadv(self._descriptor, [target.data[done:]], offset + done)
                if read == 0:
                    raise CorruptStore(f"{self.path}: too short to hold {target.nbytes:,} bytes at {offset:,}.")
                done += read
        except OSError as error:
            raise translated(error, self.path) from error
        return True

    def _advise(self, offset: int, size: int, advice: str) -> None:
        if hasattr(os, "posix_fadvise"):  # macOS does not have it
            with suppress(OSError):  # advice only
                os.posix_fadvise(self._descriptor, offset, size, getattr(os, advice))


class LocalStorage:
    """Files below a folder of a local (or shared POSIX) file system."""

    random_reads = True

    @property
    def max_open_files(self) -> int:
        """A quarter of the files that this process may open, within 16 and 4096."""
        return max(16, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))

    def __init__(self, root: Path) -> None:
        if "\0" in str(root):
            raise CacheError(f"{str(root)!r} cannot be the folder of a store: a path has no NUL character.")
        self.location = root.absolute()  # stays right when the process changes its folder

    def where(self, key: str) -> str:
        """Path of a file."""
        return str(self.location / key)

    def read(self, key: str) -> bytes | None:
        """Content of a file; None if it does not exist."""
        path = self.location / key
        try:
            with open(_open_file(path), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise translated(error, path) from error

    def open(self, key: str, scattered: bool = False) -> LocalFile:
        """A file for positioned reads."""
        return LocalFile(self.location / key, scattered)

    def size(self, key: str) -> int | None:
        """Size of a file in bytes; None if it does not exist."""
        path = self.location / key
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise translated(error, path) from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def publish(self, key: str, *pieces: bytes | memoryview) -> None:
        """Write a file atomically and durably, then read it back.

        Order: `<name>.partial` written, fsynced, read back and compared, renamed, directory fsynced.
        """
        path = self.location / key
        _remove_empty(path)
        with explained(path, sum(map(len, pieces))), durable_file(path) as partial:
            with open(partial, "wb", buffering=0) as file:
                _write_all(file.fileno(), pieces)
                os.fsync(file.fileno())
            _read_back(partial, pieces)

    def map(self, work: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
        """Results of `work` in the order of `numbers`, one after the other: a local disk answers at once."""
        return [work(number) for number in numbers]

    def remove(self, key: str) -> None:
        """Remove a file (or an empty folder in its place), durably. Nothing is removed through a linked folder."""
        path = self.location / key
        self.require_own(key.rpartition("/")[0])
        _remove_empty(path)
        with explained(path):
            if os.path.lexists(path):
                path.unlink()
                make_durable(path.parent)

    def remove_tree(self, folder: str) -> None:
        """Remove a folder with everything in it. Nothing is removed through a link."""
        self.require_own(folder)
        with explained(self.location / folder), suppress(FileNotFoundError):
            shutil.rmtree(self.location / folder)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        path = self.location / folder
        with explained(path), suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
        return []

    def files(self, folder: str = "") -> Iterator[str]:
        """Keys of all files below a folder, sorted; links to folders are among them, and are not followed."""
        keys = []
        with explained(self.location / folder):
            for path, folders, names in os.walk(
                "" if self._link(folder) else self.location / folder, onerror=_unless_gone
            ):
                links = [name for name in folders if os.path.islink(os.path.join(path, name))]
                prefix = Path(path).relative_to(self.location).as_posix()
                keys += [name if prefix == "." else f"{prefix}/{name}" for name in (*names, *links)]
        yield from sorted(keys)

    @contextmanager
    def locked(self, folder: str, wait: bool) -> Iterator[bool]:
        """Hold the exclusive lock of a folder, which is made if absent; yields False if it is busy, unless `wait`.

        The kernel drops the lock when the process ends, and it leaves no file. A folder that is still empty at the end
        is removed, so that an abandoned claim leaves no trace.
        """
        directory = self.location / folder
        with explained(directory):
            descriptor = _lock(directory, wait)
        if descriptor is None:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(OSError, NotWritable):  # not empty: the usual case
                self.require_own(folder)
                os.rmdir(directory)
            os.close(descriptor)

    def busy(self, folder: str) -> bool:
        """Whether a process holds the lock of a folder now."""
        path, descriptor = self.location / folder, None
        with explained(path), suppress(FileNotFoundError, NotADirectoryError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def clear_leftovers(self, folder: str) -> None:
        """Remove the temporary files of interrupted writes below a folder. Nothing is removed through a link."""
        self.require_own(folder)
        for key in self.files(folder):
            if self.leftover(key):
                (self.location / key).unlink(missing_ok=True)

    def leftover(self, key: str) -> bool:
        """Whether a file is the temporary file of an interrupted write."""
        return key.endswith(PARTIAL) and parse_key(key.removesuffix(PARTIAL)) is not None

    def is_lock(self, key: str) -> bool:
        """False: locks on a disk are not files."""
        return False

    def require_own(self, folder: str) -> None:
        """Raises NotWritable when a folder of the store is a link, or lies behind one: it is another's."""
        if (link := self._link(folder)) is not None:
            raise NotWritable(
                f"{link} is a link to {os.path.realpath(link)}, and nothing is removed through a link. Remove the "
                "link, and what it leads to if that is yours, by hand; then run the same command again."
            )

    def _link(self, folder: str) -> Path | None:
        """The link by which a folder of the store leads out of it, if there is one."""
        path = self.location / folder
        while path != self.location:
            if path.is_symlink():
                return path
            path = path.parent
        return None


def _unless_gone(error: OSError) -> None:
    """Raise the error of a folder that cannot be listed, unless the folder was removed meanwhile."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _open_file(path: Path) -> int:
    """Descriptor of a regular file, for reading. Raises FileNotFoundError for anything else, a FIFO for example."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a file", str(path))
    return descriptor


def _remove_empty(path: Path) -> None:
    """Remove an empty folder in the place of a file. Raises NotWritable when it has contents."""
    if path.is_symlink() or not path.is_dir():
        return
    try:
        path.rmdir()
    except OSError as error:
        raise NotWritable(f"{path} has to be a file and is a folder with contents; move the folder away.") from error


def _write_all(descriptor: int, pieces: Iterable[bytes | memoryview]) -> None:
    """Write pieces one after the other, many in one system call."""
    waiting = deque(memoryview(piece) for piece in pieces if len(piece))
    while waiting:
        written = os.writev(descriptor, list(islice(waiting, _PIECES)))
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.popleft())
        if written:
            waiting[0] = waiting[0][written:]


def _read_back(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Compare a file with what was written to it, byte for byte. Raises CorruptStore when they differ."""
    buffer = np.empty(0, dtype=np.uint8)
    with open(path, "rb") as file:
        for piece in pieces:
            if len(piece) > len(buffer):
                buffer = np.empty(len(piece), dtype=np.uint8)
            part = buffer[: len(piece)]
            if file.readinto(part.data) < len(piece) or not np.array_equal(part, np.frombuffer(piece, dtype=np.uint8)):
                raise CorruptStore(f"{path}: the bytes read back differ from those written; check the disk.")
        if file.read(1):
            raise CorruptStore(f"{path}: more bytes are read back than were written; check the disk.")


def _lock(directory: Path, wait: bool) -> int | None:
    """Descriptor that holds the lock of a directory; None if another process holds it, unless `wait`."""
    while True:
        make_folder(directory)
        try:
            descriptor = os.open(directory, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its last holder has just removed it; make it again
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.stat(directory).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
