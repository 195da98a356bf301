"""Partitions of features that a store object has locked for writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sur.cache.contents.catalog import Catalog
from sur.cache.errors import StoreBusy
from sur.cache.storage.base import Storage


class Claims:
    """Locks partitions, and knows which ones are locked here and still to be written."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._claimed: set[tuple[str, int]] = set()

    def __contains__(self, claim: tuple[str, int]) -> bool:
        return claim in self._claimed

    @contextmanager
    def claim(self, catalog: Catalog, feature: str, partition: int, wait: bool) -> Iterator[bool]:
        """Lock a partition during the block; yields True if it is locked here and still to be written.

        Yields False if it is done already or, unless `wait`, if another writer holds the lock. The declaration is read
        once the partition is locked: the feature may be dropped until then.

        Raises:
            UnknownFeature: the feature was dropped.
        """
        claim = (feature, partition)
        with self._storage.locked(catalog.get(feature).receipt_directory(partition), wait) as locked:
            to_do = locked and catalog.get(feature, fresh=True).receipt(partition) is None
            if to_do:
                self._claimed.add(claim)
            try:
                yield to_do
            finally:
                if to_do:
                    self._claimed.discard(claim)

    def require(self, feature: str, partition: int) -> None:
        """Raises StoreBusy when a partition is not claimed."""
        if (feature, partition) not in self._claimed:
            raise StoreBusy(f"Partition {partition} of {feature!r} has to be claimed before it is written.")
