"""A store in object storage (S3, Google Cloud Storage, Azure), through obstore.

A put shows a whole object or none. Locks are leases: an object that its holder rewrites every few seconds. Who waits
for one watches its ETag by the waiter's own clock, and takes over, by a conditional put, what has not changed for
`LEASE_SECONDS`; so no two machines' clocks are ever compared, and what a dead process held frees itself.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import obstore
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import from_url

from cache.errors import CorruptStore, NotWritable, StoreBusy

LEASE_SECONDS = 30.0
_BEATS = 6  # rewrites of a lock within a lease
_LOCK = "lock.partial"


class BucketFile:
    """An object read by ranges."""

    def __init__(self, storage: BucketStorage, key: str) -> None:
        self._storage, self._key = storage, key
        self.size: int = obstore.head(storage.store, key)["size"]

    def read_into(self, target: np.ndarray, offset: int) -> None:
        """Fill contiguous bytes from `offset` on, in one request."""
        found: Any = obstore.get_range(self._storage.store, self._key, start=offset, length=target.nbytes)
        data = np.frombuffer(found, dtype=np.uint8)
        if len(data) != target.nbytes:
            where = self._storage.where(self._key)
            raise CorruptStore(f"{where}: too short to hold {target.nbytes:,} bytes at {offset:,}.")
        target[...] = data


class BucketStorage:
    """Objects below a URL's prefix. Credentials and endpoint come from the environment, and are never stored."""

    random_reads = False

    def __init__(self, url: str) -> None:
        self.location = url.rstrip("/")
        backoff = {"base": 2, "init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=10)}
        retries: Any = {"max_retries": 8, "backoff": backoff}
        self.store: Any = from_url(self.location, retry_config=retries)
        self._held: list[_Lease] = []
        self._watched: dict[str, tuple[str, float]] = {}  # lock -> (ETag, when it was first seen)

    def where(self, key: str) -> str:
        """URL of an object."""
        return f"{self.location}/{key}"

    def read(self, key: str) -> bytes | None:
        """A whole object; None if there is none."""
        try:
            return bytes(obstore.get(self.store, key).bytes())
        except FileNotFoundError:
            return None

    def open(self, key: str) -> BucketFile:
        """An object for reads by range."""
        return BucketFile(self, key)

    def size(self, key: str) -> int | None:
        """Bytes of an object; None if there is none."""
        try:
            return obstore.head(self.store, key)["size"]
        except FileNotFoundError:
            return None

    def publish(self, key: str, data: bytes | memoryview) -> None:
        """Put an object, then read it back. Refused once a lock held here was lost to another writer."""
        for lease in self._held:
            lease.check()
        try:
            obstore.put(self.store, key, bytes(data))
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise NotWritable(f"{self.where(key)} may not be written with these credentials: {error}.") from error
        if self.read(key) != data:
            raise CorruptStore(f"{self.where(key)}: the bytes read back differ from those written.")

    def remove(self, key: str) -> None:
        """Remove an object."""
        with suppress(FileNotFoundError):
            obstore.delete(self.store, key)

    def remove_tree(self, folder: str) -> None:
        """Remove every object below a folder."""
        if keys := list(self.files(folder)):
            obstore.delete(self.store, keys)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        found = obstore.list_with_delimiter(self.store, folder or None)["common_prefixes"]
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in found)

    def files(self, folder: str = "") -> Iterator[str]:
        """Keys of all objects below a folder, sorted."""
        yield from sorted(item["path"] for page in obstore.list(self.store, folder or None) for item in page)

    @contextmanager
    def locked(self, folder: str, wait: bool) -> Iterator[bool]:
        """Hold a folder's lease; yields False if busy and not `wait`."""
        key = f"{folder}/{_LOCK}".lstrip("/")
        while (tag := self._acquire(key)) is None:
            if not wait:
                yield False
                return
            time.sleep(min(1.0, LEASE_SECONDS / _BEATS))
        lease = _Lease(self, key, tag)
        self._held.append(lease)
        try:
            yield True
        finally:
            self._held.remove(lease)
            lease.release()

    def busy(self, folder: str) -> bool:
        """Whether a folder's lock was rewritten lately, by the storage's clock against ours."""
        try:
            seen = obstore.head(self.store, f"{folder}/{_LOCK}".lstrip("/"))["last_modified"]
        except FileNotFoundError:
            return False
        return time.time() - seen.timestamp() < 2 * LEASE_SECONDS

    def clear_leftovers(self, folder: str) -> None:
        """Nothing to do: a put leaves a whole object or none."""

    def leftover(self, key: str) -> bool:
        """Whether an object is a lock, perhaps of a dead process."""
        return key.endswith(_LOCK)

    def _acquire(self, key: str) -> str | None:
        """ETag of the lock that is now ours; None while another's is alive."""
        body = json.dumps({"holder": uuid.uuid4().hex}).encode()
        with suppress(AlreadyExistsError):
            return obstore.put(self.store, key, body, mode="create")["e_tag"]
        try:
            tag = obstore.head(self.store, key)["e_tag"] or ""
        except FileNotFoundError:
            return None  # just released: the next try gets it
        known, since = self._watched.get(key, ("", 0.0))
        if tag != known:
            self._watched[key] = (tag, time.monotonic())
        elif time.monotonic() - since > LEASE_SECONDS:
            with suppress(PreconditionError, FileNotFoundError):
                return obstore.put(self.store, key, body, mode={"e_tag": tag})["e_tag"]
        return None


class _Lease:
    """A lock that is ours as long as a thread keeps rewriting it."""

    def __init__(self, storage: BucketStorage, key: str, tag: str | None) -> None:
        self._storage, self._key, self._tag = storage, key, tag
        self._beat_at = time.monotonic()
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {key}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StoreBusy when another writer may have taken over."""
        if self._lost or time.monotonic() - self._beat_at > LEASE_SECONDS / 2:
            raise StoreBusy(
                f"The lock {self._storage.where(self._key)} could not be renewed in time, so another writer may have "
                "taken over; nothing was written. Run the same command again to resume."
            )

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        self._stop.set()
        self._thread.join()
        if not self._lost and time.monotonic() - self._beat_at < LEASE_SECONDS / 2:
            self._storage.remove(self._key)

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(LEASE_SECONDS / _BEATS):
            count += 1
            body = json.dumps({"holder": uuid.uuid4().hex, "beat": count}).encode()
            try:
                self._tag = obstore.put(self._storage.store, self._key, body, mode={"e_tag": self._tag})["e_tag"]
                self._beat_at = time.monotonic()
            except (PreconditionError, FileNotFoundError):
                self._lost = True
                return
            except Exception:  # the network is away: `check` refuses to write until it is back
                continue
