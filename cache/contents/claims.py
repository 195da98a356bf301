"""Partitions of features that a store object has locked for writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sur.cache.contents.features import Feature
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
    def claim(self, lookup: Callable[[], Feature], feature: Feature, partition: int, wait: bool) -> Iterator[bool]:
        """Lock a partition during the block; yields True if it is locked here and still to be written.

        Yields False if it is done already or, unless `wait`, if another writer holds the lock. `lookup` reads the
        feature's declaration again, once the partition is locked: the feature may be dropped until then.

        Raises:
            UnknownFeature: the feature was dropped.
        """
        claim = (feature.spec.name, partition)
        with self._storage.locked(feature.receipt_directory(partition), wait) as locked:
            to_do = locked and lookup().receipt(partition) is None
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
