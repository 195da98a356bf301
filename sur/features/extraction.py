"""From rows to features in the store: the plain functions that the flows wrap.

A prompt (or picture) that several rows share is encoded once, for the first slot that holds it (its
owner); later partitions copy the owner's values. So partitions are computed in ascending order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sur.cache import RowRecord, Store, WriteBehind
from sur.config.load import save_config
from sur.config.run import RunConfig
from sur.data import RowSource, open_rows, write_quarantine
from sur.features.assets import compute_empty_prompt, compute_readout, readout_spec
from sur.features.encoders import Encoder, build_encoders
from sur.features.partition import OUTSIDE, Duplicates, Items, OfAnotherDataSet, encode_rows, forget_duplicates
from sur.features.plan import Plan, make_plan, scan_rows, wants_readout

if TYPE_CHECKING:
    from sur.config.run import RunConfig


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionsDone:
    """What one call of `extract_partitions` did; partitions that needed nothing are not counted."""

    encoder: str
    partitions: tuple[int, ...]
    rows: int = 0
    missing: int = 0
    tokens: int = 0
    truncated: int = 0
    bytes: int = 0
    wall_seconds: float = 0.0


def encoder_keys(config: RunConfig) -> list[str]:
    """Names of the configured encoders in the order in which they run."""
    keys = ["llm"] if config.llm else []
    keys += ["text.simple", "text.complex"]
    return keys + (["vae"] if config.vae else [])


def prepare(config: RunConfig) -> Plan:
    """Scan the rows, refuse what cannot fit, add the new rows to the store and create the features.

    Writes `config.yaml` and `quarantine.jsonl` into the run folder.

    Raises:
        DoesNotFit: the disk is too small.
        cache.IdentityMismatch: a feature of that name was made otherwise.
    """
    save_config(config)
    records, quarantined = scan_rows(config)
    plan = make_plan(config, records, quarantined)
    write_quarantine(config.run_dir / "quarantine.jsonl", quarantined)
    plan.require_space()
    specs = [spec for key in encoder_keys(config) for spec in load_encoder(config, key).specs()]
    store = Store.open_or_create(config.store.path, config.store.rows_per_partition)
    for spec in specs:
        store.ensure_feature(spec)
    if wants_readout(config):
        readout_spec(store, config)  # a denoiser that cannot be read is refused before hours of encoding
    added = store.add_rows(records)
    left, now = store.set_members(config.data.slug, (record.id for record in records))
    logger.info("rows: %d valid, %d new, %d quarantined", len(records), added, len(plan.quarantined))
    if left:
        logger.warning(
            "data set %s: %d rows that it had are gone, edited, unreadable or beyond data.limit; training skips them "
            "(%d left)",
            config.data.slug,
            left,
            now,
        )
    _retry_returned_rows(store, config)
    for spec in specs:
        total = store.n_partitions
        logger.info(
            "feature %s: %d of %d partitions already done",
            spec.name,
            total - len(store.pending(spec.name)),
            total,
        )
    return plan


def _retry_returned_rows(store: Store, config: RunConfig) -> None:
    """Have partitions encoded anew in which a row was without its picture while it was out of the data set."""
    if config.vae is None:
        return
    members, name = store.members(config.data.slug), config.vae.feature_name
    returned = {slot for slot, why in store.missing(name).items() if why.startswith(OUTSIDE) and members[slot]}
    for partition in {slot // store.rows_per_partition for slot in returned}:
        store.discard(name, partition)


def pending_partitions(config: RunConfig, key: str) -> list[int]:
    """Partitions that lack at least one of an encoder's features, ascending."""
    store = Store.open(config.store.path)
    return sorted({partition for name in load_encoder(config, key).shapes() for partition in store.pending(name)})


def extract_partitions(config: RunConfig, key: str, partitions: Sequence[int]) -> PartitionsDone:
    """Compute one encoder's features for the given partitions, skipping what has its receipt.

    A partition that another process is computing is left to it, and waited for at the end. What was encoded is
    written in the background, two partitions at a time. All are on the disk when this returns, or raises.

    key: one of `encoder_keys(config)`.
    """
    started = time.monotonic()
    with WriteBehind() as writes:
        work = _Work(config, key, writes)
        busy = [partition for partition in sorted(partitions) if not work.complete(partition)]
        if busy:
            logger.info("%s: waiting for partitions %s, which another process is computing", key, busy)
        for partition in busy:
            work.complete(partition, wait=True)
    return replace(work.done, wall_seconds=time.monotonic() - started)


def extract(config: RunConfig) -> list[PartitionsDone]:
    """The whole extraction without Prefect, as the flow does it."""
    prepare(config)
    done = []
    try:
        for key in encoder_keys(config):
            pending = pending_partitions(config, key)
            step = config.flow.partitions_per_task
            done += [extract_partitions(config, key, pending[i : i + step]) for i in range(0, len(pending), step)]
    finally:
        close_encoders()
    make_assets(config)
    return done


def make_assets(config: RunConfig) -> None:
    """Store what belongs to no row, where a loss asks for it: the denoiser's read-out, the empty prompt's states."""
    if config.loss.denoising.caption_dropout:
        compute_empty_prompt(Store.open(config.store.path, writable=True), config)
    if wants_readout(config):
        compute_readout(Store.open(config.store.path, writable=True), config)


def load_encoder(config: RunConfig, key: str) -> Encoder:
    """One of the configured encoders; the last one asked for keeps its weights between calls."""
    section = key.partition(".")[0]
    model = getattr(config, section)
    if model is None:
        raise ValueError(f"the configuration has no section '{section}', which encoder '{key}' needs")
    for encoder in _encoders(section, model):
        if key in (encoder.kind, f"{encoder.kind}.{encoder.consumes}"):
            return encoder
    raise ValueError(f"unknown encoder '{key}'; configured: {encoder_keys(config)}")


def close_encoders() -> None:
    """Forget the loaded encoder and its weights, or end the server that runs for it; forget the store's rows too."""
    _stores.clear()
    forget_duplicates()
    _close_weights()


_held: dict[tuple[str, object], list[Encoder]] = {}
_stores: dict[Path | str, Store] = {}


def _store(path: Path | str) -> Store:
    """The store, opened once for many tasks: it remembers its rows, and finds what others add to it."""
    if path not in _stores or _stores[path].replaced():
        _stores.clear()
        _stores[path] = Store.open(path, writable=True)
    return _stores[path]


def _encoders(section: str, model: object) -> list[Encoder]:
    """The encoders of one config section; at most one section's weights are held."""
    if (section, model) not in _held:
        _close_weights()
        _held[section, model] = build_encoders(**{section: model})  # pyright: ignore[reportArgumentType]
    return _held[section, model]


def _close_weights() -> None:
    while _held:
        _, encoders = _held.popitem()
        for encoder in encoders:
            encoder.close()


class _Work:
    """What all partitions of one call share: store, encoder, features, owners of duplicates."""

    def __init__(self, config: RunConfig, key: str, writes: WriteBehind) -> None:
        self.writes = writes
        self.unwritten: set[tuple[str, int]] = set()  # partitions that are encoded and not yet written
        self.store = _store(config.store.path)
        self.encoder = load_encoder(config, key)
        self.names = list(self.encoder.shapes())
        source: RowSource | None = open_rows(config.data) if self.encoder.consumes == "image" else None
        self.items = Items(self.encoder.consumes, source, config.data.max_image_pixels)
        self.duplicates = Duplicates(self.store, self.encoder.consumes)
        self.members = self.store.members(config.data.slug)
        masks = [self.store.members(name) for name in self.store.datasets() if name != config.data.slug]
        self.others = np.any([np.zeros_like(self.members), *masks], axis=0)
        self.left: set[int] = set()  # partitions that another data set has to encode
        self.done = PartitionsDone(key, ())

    def complete(self, partition: int, wait: bool = False) -> bool:
        """Compute what a partition lacks, owners of its duplicates first.

        wait: wait for another writer of it. Without, returns False when there is one.
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
        there = (name for name in self.names if (name, partition) not in self.unwritten)
        return [name for name in there if self.store.receipt(name, partition) is None]

    def _owned(self, row: RowRecord, reason: str) -> str:
        """What is recorded of a picture's fault: final for rows of this data set, to be tried again for removed ones.

        Raises OfAnotherDataSet for a row that only another data set has.
        """
        if self.members[row.slot]:
            return reason
        if self.others[row.slot]:
            raise OfAnotherDataSet
        return OUTSIDE + reason

    def _compute(self, partition: int, claimed: list[str], rows: list[RowRecord], locks: ExitStack) -> None:
        """Encode, and have the values written in the background; `locks` are held until they are."""
        try:
            encoded = encode_rows(
                self.store, self.encoder, claimed, rows, self.items, self.duplicates, self._owned, self.writes.drain
            )
        except OfAnotherDataSet:
            self.left.add(partition)
            logger.warning("%s: partition %d is left to the data set that its pictures belong to", claimed, partition)
            return
        packed = {
            name: self.store.pack_partition(
                name, partition, encoded.values.pop(name), encoded.missing[name], encoded.stats
            )
            for name in claimed
        }
        held = locks.pop_all()

        def publish() -> None:
            try:
                with held:
                    for name in claimed:
                        self.store.publish_partition(name, packed[name])
                        logger.info("feature %s: partition %d computed, %d rows", name, partition, len(rows))
            finally:
                self.unwritten.difference_update([(name, partition) for name in claimed])

        self.unwritten.update((name, partition) for name in claimed)
        self.writes.submit(publish)
        written = sum(shard.bytes for made in packed.values() for shard in made.receipt.shards.values())
        self.done = replace(
            self.done,
            partitions=(*self.done.partitions, partition),
            rows=self.done.rows + len(rows),
            missing=self.done.missing + max(len(encoded.missing[name]) for name in claimed),
            tokens=self.done.tokens + encoded.stats.get("tokens", 0),
            truncated=self.done.truncated + encoded.stats.get("truncated", 0),
            bytes=self.done.bytes + written,
        )
