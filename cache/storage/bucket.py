"""A store in object storage (S3, Google Cloud Storage, Azure), through obstore.

A put makes a whole object visible or nothing. A lock is a lease: an object that its holder rewrites every few seconds.
A process that waits for the lock polls the object's ETag. If the ETag does not change for `LEASE_SECONDS` by the
waiting process's own clock, that process takes the lock over by a conditional put. So the clocks of two machines are
never compared, and the lock of a dead process expires.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from sur.cache.errors import CacheError, CorruptStore, NotWritable, StoreBusy
from sur.cache.threads import map_parallel

T = TypeVar("T")
logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
_BEATS = 6  # rewrites of a lock within a lease
_LOCK = "lock"


class BucketFile:
    """An object, read by range."""

    def __init__(self, storage: BucketStorage, key: str) -> None:
        self._storage, self._key = storage, key
        with storage.explained(key):
            self.size: int = obstore.head(storage.store, key)["size"]

    def read_now(self, target: np.ndarray, offset: int) -> bool:
        """False: every read from a bucket has to be waited for."""
        return False

    def read_into(self, target: np.ndarray, offset: int) -> bool:
        """Fill `target` from `offset` on in one request; returns True."""
        with self._storage.explained(self._key):
            content: Any = obstore.get_range(self._storage.store, self._key, start=offset, length=target.nbytes)
        data = np.frombuffer(content, dtype=np.uint8)
        if len(data) != target.nbytes:
            where = self._storage.where(self._key)
            raise CorruptStore(f"{where}: too short to hold {target.nbytes:,} bytes at {offset:,}.")
        target[...] = data
        return True


class BucketStorage:
    """Objects below the prefix of a URL. Credentials and endpoint come from the environment and are never stored."""

    random_reads = False
    max_open_files = 4096  # an open object takes a little memory, and no file descriptor

    def __init__(self, url: str) -> None:
        self.location = url.rstrip("/")
        backoff = {"base": 2, "init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=10)}
        retries: Any = {"max_retries": 8, "backoff": backoff}
        try:
            self.store: Any = from_url(self.location, retry_config=retries)
        except (BaseError, ValueError) as error:
            raise CacheError(
                f"{url} is not a location for a store: {error}. Give a folder, or s3://bucket/prefix, gs:// or az://."
            ) from error
        self.leases: list[_Lease] = []
        self._watched: dict[str, tuple[str, float]] = {}  # by lock: its ETag, and when that was first seen

    def where(self, key: str) -> str:
        """URL of an object."""
        return f"{self.location}/{key}"

    def read(self, key: str) -> bytes | None:
        """Content of an object; None if it does not exist."""
        with self.explained(key), suppress(FileNotFoundError):
            return bytes(obstore.get(self.store, key).bytes())
        return None

    def open(self, key: str, scattered: bool = False) -> BucketFile:
        """An object for positioned reads."""
        return BucketFile(self, key)

    def size(self, key: str) -> int | None:
        """Size of an object in bytes; None if it does not exist."""
        with self.explained(key), suppress(FileNotFoundError):
            return obstore.head(self.store, key)["size"]
        return None

    def publish(self, key: str, *pieces: bytes | memoryview) -> None:
        """Put an object, then read it back. Raises StoreBusy if another writer may have taken over a lock held here."""
        data = b"".join(pieces)
        for lease in tuple(self.leases):  # another thread may release its own lease
            lease.check()
        with self.explained(key):
            obstore.put(self.store, key, data)
        if self.read(key) != data:
            raise CorruptStore(f"{self.where(key)}: the bytes read back differ from those written.")

    def map(self, work: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
        """Results of `work` in the order of `numbers`, several at a time."""
        return map_parallel(work, numbers)

    def remove(self, key: str) -> None:
        """Remove an object."""
        with self.explained(key), suppress(FileNotFoundError):
            obstore.delete(self.store, key)

    def remove_tree(self, folder: str) -> None:
        """Remove every object below a folder."""
        if keys := list(self.files(folder)):
            with self.explained(folder):
                obstore.delete(self.store, keys)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        with self.explained(folder):
            prefixes = obstore.list_with_delimiter(self.store, folder or None)["common_prefixes"]
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes)

    def files(self, folder: str = "") -> Iterator[str]:
        """Keys of all objects below a folder, sorted."""
        with self.explained(folder):
            keys = sorted(item["path"] for page in obstore.list(self.store, folder or None) for item in page)
        yield from keys

    @contextmanager
    def locked(self, folder: str, wait: bool) -> Iterator[bool]:
        """Hold the lease of a folder during a block; yields False if it is busy, unless `wait`."""
        key = f"{folder}/{_LOCK}".lstrip("/")
        holder, since = uuid.uuid4().hex, _clock()
        while (tag := self.acquire(key, holder)) is None:
            if not wait:
                yield False
                return
            _pause(min(1.0, LEASE_SECONDS / _BEATS))
            since = _clock()
        lease = _Lease(self, key, holder, tag, since)
        self.leases.append(lease)
        try:
            yield True
        finally:
            self.leases.remove(lease)
            lease.release()

    def busy(self, folder: str) -> bool:
        """Whether the lock of a folder was rewritten lately; compares the storage's clock with ours."""
        key = f"{folder}/{_LOCK}".lstrip("/")
        with self.explained(key), suppress(FileNotFoundError):
            seen = obstore.head(self.store, key)["last_modified"]
            return time.time() - seen.timestamp() < 2 * LEASE_SECONDS
        return False

    def clear_leftovers(self, folder: str) -> None:
        """Nothing to do: a put leaves a whole object or none."""

    def leftover(self, key: str) -> bool:
        """False: a put leaves a whole object or none."""
        return False

    def require_own(self, folder: str) -> None:
        """Nothing to do: a bucket has no links."""

    def is_lock(self, key: str) -> bool:
        """Whether an object is a lock, be its holder alive or dead."""
        return key.rpartition("/")[2] == _LOCK

    def acquire(self, key: str, holder: str) -> str | None:
        """ETag of a lock that was acquired; None while another holder keeps it alive."""
        body = json.dumps({"holder": holder}).encode()
        with self.explained(key):
            with suppress(AlreadyExistsError):
                return obstore.put(self.store, key, body, mode="create")["e_tag"]
            try:
                tag = obstore.head(self.store, key)["e_tag"] or ""
            except FileNotFoundError:
                return None  # just released; the next try gets it
            known, since = self._watched.get(key, ("", 0.0))
            if tag != known:
                self._watched[key] = (tag, _clock())
            elif _clock() - since > LEASE_SECONDS:
                with suppress(PreconditionError, FileNotFoundError):
                    return obstore.put(self.store, key, body, mode={"e_tag": tag})["e_tag"]
        return None

    @contextmanager
    def explained(self, key: str) -> Iterator[None]:
        """Translate the errors of refused credentials and of a silent storage into errors that name the remedy."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise NotWritable(
                f"{self.where(key)} may not be used with these credentials: {error}. Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY (or the cloud's own variables) to ones that may read and write there."
            ) from error
        except GenericError as error:
            raise CacheError(f"{self.where(key)} cannot be reached: {error}. Run the same command again.") from error


class _Lease:
    """A lock that is held as long as a background thread keeps rewriting it."""

    def __init__(self, storage: BucketStorage, key: str, holder: str, tag: str | None, since: float) -> None:
        self._storage, self._key, self._holder, self._tag = storage, key, holder, tag
        self._renewed = since  # when the last put that is known to have succeeded was sent
        self._lost = False
        self._count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {key}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StoreBusy when another writer may have taken over."""
        if self._lost or _clock() - self._renewed > LEASE_SECONDS / 2:
            raise StoreBusy(
                f"The lock {self._storage.where(self._key)} could not be renewed in time, so another writer may have "
                "taken over; nothing was written. Run the same command again to resume."
            )

    def renew(self) -> None:
        """Rewrite the lock once. It is lost if another holder has it; if that is unknown, it is just not renewed."""
        self._count += 1
        body = json.dumps({"holder": self._holder, "beat": self._count}).encode()
        sent = _clock()
        try:
            self._tag = obstore.put(self._storage.store, self._key, body, mode={"e_tag": self._tag})["e_tag"]
        except (PreconditionError, FileNotFoundError):
            # A put whose answer was lost is repeated by the client, and finds its own ETag gone.
            if not self._ours():
                self._lost = True
                return
        self._renewed = sent

    def release(self) -> None:
        """Delete the lock if it is still held here. A lock that cannot be deleted expires."""
        self._stop.set()
        self._thread.join()
        try:
            if not self._lost and self._ours():
                obstore.delete(self._storage.store, self._key)
        except (BaseError, OSError) as error:
            logger.warning("%s could not be released: %s", self._storage.where(self._key), error)

    def _beat(self) -> None:
        while not self._lost and not self._stop.wait(LEASE_SECONDS / _BEATS):
            try:
                self.renew()
            except (BaseError, OSError) as error:  # `check` refuses to write until a renewal gets through
                logger.warning("%s was not renewed: %s", self._storage.where(self._key), error)

    def _ours(self) -> bool:
        """Whether the lock names this holder; if so, remember its ETag. Errors of the network are raised."""
        try:
            lock = obstore.get(self._storage.store, self._key)
            holder = json.loads(bytes(lock.bytes())).get("holder")
        except (FileNotFoundError, ValueError):
            return False
        if holder == self._holder:
            self._tag = lock.meta["e_tag"]
        return holder == self._holder


def _clock() -> float:
    """A clock in seconds that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _pause(seconds: float) -> None:
    """Wait before asking for a lock again."""
    time.sleep(seconds)
