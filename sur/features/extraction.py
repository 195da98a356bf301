"""From rows to features in the store: the plain functions and the class that the flow wraps.

A prompt (or picture) that several rows share is encoded once, for the first slot that holds it (its
owner); later partitions copy the owner's values. So partitions are computed in ascending order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from sur.cache import RowRecord, Store, WriteBehind
from sur.data import open_rows
from sur.features.encoders import Encoder, build_encoders
from sur.features.outcome import conclude, require_values
from sur.features.partition import NO_ITEM, Duplicates, EncodedRows, Items, copy_values, encode_rows, may_pass
from sur.features.prepare import prepare
from sur.features.readout import compute_readout, needs_readout

if TYPE_CHECKING:
    from sur.config.data import DataConfig
    from sur.config.run import RunConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionsDone:
    """What one call of `Extraction.encode` did; partitions that needed nothing are not counted."""

    encoder: str
    partitions: tuple[int, ...]
    rows: int = 0
    missing: int = 0
    tokens: int = 0
    truncated: int = 0
    bytes: int = 0
    wall_seconds: float = 0.0


def extract(config: RunConfig) -> list[PartitionsDone]:
    """The whole extraction without Prefect, as the flow does it; returns what each batch of partitions did.

    Raises: NothingEncoded when a feature has no value of any row; what is done is kept.
    """
    done = []
    with Extraction(config) as extraction:
        plan = prepare(config, list(extraction.encoders.values()))
        for key in extraction.encoders:
            pending = extraction.pending(key)
            step = config.flow.partitions_per_task
            done += [extraction.encode(key, pending[i : i + step]) for i in range(0, len(pending), step)]
        names = extraction.feature_names()
    require_values(config, conclude(config, names, plan.quarantined))
    make_assets(config)
    return done


def make_assets(config: RunConfig) -> None:
    """Store what belongs to no row, where a loss needs it: the denoiser's read-out."""
    if needs_readout(config.loss, config.vae):
        store = Store.open(config.store.path, writable=True)
        compute_readout(store, config.base, config.text, config.vae, config.readout)


class Extraction:
    """The encoders, the store and the known duplicates of one configuration, kept open between calls.

    At most the weights of one section (llm, text or vae) are loaded at a time. Use as a context manager, or call
    `close` at the end.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.encoders: dict[str, Encoder] = {
            encoder.key: encoder for encoder in build_encoders(config.llm, config.text, config.vae)
        }
        self._store: Store | None = None
        self._duplicates: Duplicates | None = None
        self._loaded_kind: str | None = None  # of the encoders that may hold weights

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the weights, or end the server that runs for them; forget the store and its rows."""
        self._store = self._duplicates = self._loaded_kind = None
        for encoder in self.encoders.values():
            encoder.close()

    def fits(self, config: RunConfig) -> bool:
        """Whether another configuration has the same store, rows and encoders."""
        sections = ("store", "data", "llm", "text", "vae")
        return all(getattr(self.config, section) == getattr(config, section) for section in sections)

    def encoder(self, key: str) -> Encoder:
        """One of the configured encoders. Raises: ValueError for a key that is not in `encoders`."""
        if key not in self.encoders:
            raise ValueError(f"unknown encoder '{key}'; configured: {list(self.encoders)}")
        return self.encoders[key]

    def feature_names(self) -> list[str]:
        """Names of all encoders' features."""
        return [name for encoder in self.encoders.values() for name in encoder.shapes()]

    def pending(self, key: str) -> list[int]:
        """Partitions that lack at least one of an encoder's features, ascending."""
        store = Store.open(self.config.store.path)
        return sorted({partition for name in self.encoder(key).shapes() for partition in store.pending(name)})

    def encode(self, key: str, partitions: Sequence[int]) -> PartitionsDone:
        """Compute one encoder's features for the given partitions, skipping those that have their receipts.

        A partition that another process is computing is left to that process, and waited for at the end. EncodedItems
        values are written in the background, two partitions at a time. All are on the disk when this returns or raises.
        """
        started = time.monotonic()
        encoder = self.encoder(key)
        self._unload_others(encoder)
        with WriteBehind() as writes:
            batch = _Batch(self._opened_store(), encoder, self._duplicates_of(encoder), self.config.data, writes)
            busy = [partition for partition in sorted(partitions) if not batch.complete(partition)]
            if busy:
                logger.info("%s: waiting for partitions %s, which another process is computing", key, busy)
            for partition in busy:
                batch.complete(partition, wait=True)
        return replace(batch.done, wall_seconds=time.monotonic() - started)

    def _unload_others(self, encoder: Encoder) -> None:
        """Forget the weights of the encoders of other sections."""
        if self._loaded_kind not in (None, encoder.kind):
            for other in self.encoders.values():
                if other.kind == self._loaded_kind:
                    other.close()
        self._loaded_kind = encoder.kind

    def _opened_store(self) -> Store:
        """The store, opened once for many calls: it remembers its rows, and finds those that others add to it."""
        if self._store is None or self._store.replaced():
            self._store = Store.open(self.config.store.path, writable=True)
        return self._store

    def _duplicates_of(self, encoder: Encoder) -> Duplicates:
        """The duplicates of what an encoder consumes, read anew when rows were added."""
        store = self._opened_store()
        if self._duplicates is None or not self._duplicates.cover(store, encoder.consumes):
            self._duplicates = Duplicates(store, encoder.consumes)
        return self._duplicates


class _Batch:
    """The partitions of one call: completes them one by one, and counts in `done` what was written."""

    def __init__(
        self, store: Store, encoder: Encoder, duplicates: Duplicates, data: DataConfig, writes: WriteBehind
    ) -> None:
        self.store, self.encoder, self.duplicates, self.writes = store, encoder, duplicates, writes
        self.names = list(encoder.shapes())
        source = open_rows(data) if encoder.consumes == "image" else None
        places = store.places(data.slug) if encoder.consumes == "image" else {}
        self.items = Items(encoder.consumes, source, data.max_image_pixels, places)
        self.image_column = data.image_column or "image"
        self.members = store.members(data.slug)
        masks = [store.members(name) for name in store.datasets() if name != data.slug]
        self.others = np.any([np.zeros_like(self.members), *masks], axis=0)
        self.unwritten: set[tuple[str, int]] = set()  # partitions that are encoded and not yet written
        self.left: set[int] = set()  # partitions that another data set has to encode
        self.warned = False
        self.done = PartitionsDone(encoder.key, ())

    def complete(self, partition: int, wait: bool = False) -> bool:
        """Compute what a partition lacks, owners of its duplicates first; False when another writer is at it.

        wait: wait for another writer instead.
        """
        missing = self._lacking(partition)
        rows = self.store.rows(partition)
        if missing:
            owners = self.duplicates.owner_partitions(rows)
            if not all(self.complete(owner, wait=wait) for owner in owners):
                return False
            if self.left & set(owners):
                self.left.add(partition)
                return True
            with ExitStack() as locks:
                claims = [(name, self.store.claim(name, partition, wait)) for name in missing]
                claimed = [name for name, claim in claims if locks.enter_context(claim)]
                if claimed:
                    self._compute(partition, claimed, rows, locks)
            others = (name for name in missing if name not in claimed)
            if any(self.store.receipt(name, partition) is None for name in others):
                return False
        return True

    def _lacking(self, partition: int) -> list[str]:
        """Features of the encoder for which the partition is neither done nor about to be written."""
        names = (name for name in self.names if (name, partition) not in self.unwritten)
        return [name for name in names if self.store.receipt(name, partition) is None]

    def _compute(self, partition: int, claimed: list[str], rows: list[RowRecord], locks: ExitStack) -> None:
        """Encode the claimed features of a partition, and have the values written; `locks` are open until they are."""
        encoded = self._encoded(claimed, rows)
        if encoded is None:
            self.left.add(partition)
            logger.warning("%s: partition %d is left to the data set that its pictures belong to", claimed, partition)
            return
        packed = {
            name: self.store.pack_partition(
                name, partition, encoded.values.pop(name), encoded.missing[name], encoded.stats
            )
            for name in claimed
        }
        claims = locks.pop_all()

        def publish() -> None:
            try:
                with claims:
                    for name in claimed:
                        self.store.publish_partition(name, packed[name])
                        logger.info("feature %s: partition %d computed, %d rows", name, partition, len(rows))
            finally:
                self.unwritten.difference_update([(name, partition) for name in claimed])

        self.unwritten.update((name, partition) for name in claimed)
        self.writes.submit(publish)
        self._warn_of_losses(partition, encoded)
        written = sum(shard.bytes for part in packed.values() for shard in part.receipt.shards.values())
        self.done = replace(
            self.done,
            partitions=(*self.done.partitions, partition),
            rows=self.done.rows + len(rows),
            missing=self.done.missing + max(len(encoded.missing[name]) for name in claimed),
            tokens=self.done.tokens + encoded.stats.get("tokens", 0),
            truncated=self.done.truncated + encoded.stats.get("truncated", 0),
            bytes=self.done.bytes + written,
        )

    def _warn_of_losses(self, partition: int, encoded: EncodedRows) -> None:
        """Log the first rows of this call that got no value although they have what the encoder reads."""
        reasons = encoded.missing.values()
        lost = {row: why for rows in reasons for row, why in rows.items() if not why.startswith(NO_ITEM)}
        if lost and not self.warned:
            self.warned = True
            said = (self.encoder.key, partition, len(lost), next(iter(lost.values())))
            logger.warning("%s: partition %d: %d rows got no value; the first: %s", *said)

    def _encoded(self, claimed: list[str], rows: list[RowRecord]) -> EncodedRows | None:
        """The rows' values; None when a picture is unreadable that belongs to a row of another data set only.

        Such a partition is left to that data set's extraction. A picture that was not read may be read another time:
        `prepare` has its partition computed anew as soon as the row has its picture.
        """
        outside = {place for place, row in enumerate(rows) if not self.members[row.slot]}
        foreign = {place for place in outside if self.others[rows[place].slot]}
        specs = [self.store.spec(name) for name in claimed]
        own: set[int] = set()
        while True:
            encoded = encode_rows(self.encoder, specs, rows, self.items, self.duplicates, foreign, own)
            if foreign & encoded.unreadable.keys():
                return None
            encoded.record_unreadable(outside)
            if not encoded.copies:
                return encoded
            self.writes.drain()  # the owners' values must be on the disk
            without = copy_values(self.store, encoded)
            unread = {row for row, reason in without.items() if may_pass(reason, self.image_column)}
            if not unread:
                return encoded
            own |= unread  # the earlier row's picture was not read, this one's was
