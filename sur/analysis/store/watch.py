"""Keeps the table of a store up to date while an extraction writes to the store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sur.analysis.store.blocks import token_counts
from sur.analysis.store.table import FeatureColumn, State, Table
from sur.cache import CacheError, FeatureSpec, Receipt, Store
from sur.cache.format.spec import ID_BYTES

TOKEN_ARRAYS = ("mask", "length")  # arrays with the number of a row's tokens; the mask, if there is one
_log = logging.getLogger(__name__)


@dataclass
class _Growing:
    """A feature as far as it is read: states and lengths by partition, reasons by row number."""

    spec: FeatureSpec
    states: dict[int, np.ndarray] = field(default_factory=dict)
    lengths: dict[int, np.ndarray] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    bytes_on_disk: int = 0


class StoreWatch:
    """Reads new rows, receipts and data sets of a store, in one thread at a time; `table` is always consistent.

    Rows and receipts are read once: later damage is found when values are read. A feature that was dropped leaves the
    table; a feature that was computed anew under the same name replaces the old one.
    """

    def __init__(self, location: str | Path, seconds: float = 2.0) -> None:
        self.store = Store.open(location)
        self.seconds = seconds
        self.trouble = ""
        self._damaged: dict[tuple[str, int], str] = {}  # the fault of a feature's partition
        self._ids: list[np.ndarray] = []
        self._slots: list[np.ndarray] = []
        self._texts: tuple[list[str], ...] = ([], [], [], [])
        self._starts: list[int] = [0]  # number of each partition's first row
        self._growing: dict[str, _Growing] = {}
        self._members: dict[str, np.ndarray] = {}
        self._number = 0
        self._total = 0
        self._lock = threading.Lock()
        self.all_read = threading.Event()  # set when everything was read once
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.table = self._new_table()

    def start(self, wait_seconds: float = 1.5) -> None:
        """Read again and again in the background; wait at most so long for the first reading to end."""
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()
        self.all_read.wait(wait_seconds)

    def stop(self) -> None:
        """End the background's work."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> Table:
        """Read everything that is new; returns the table.

        A damaged partition of a feature stays pending, is named in `trouble`, and is read again the next time.

        Raises: CacheError for damaged rows; the rows before them are in the table.
        """
        with self._lock:
            updated = time.monotonic()
            before, self._damaged = self._damaged, {}
            try:
                for changed in self._read_new():
                    if self._ended.is_set():
                        break
                    if changed and time.monotonic() - updated > 0.5:  # a large store takes many seconds
                        self.table, updated = self._snapshot(), time.monotonic()
            finally:
                self.table = self._snapshot()
            for place, fault in self._damaged.items():
                if before.get(place) != fault:
                    _log.warning("partition %d of %s is not shown: %s", place[1], place[0], fault)
            first = next(iter(self._damaged.values()), "")
            more = len(self._damaged) - 1
            self.trouble = f"{first} (and {more} more)" if more > 0 else first
            return self.table

    def _watch(self) -> None:
        while not self._ended.is_set():
            try:
                self.refresh()
            except Exception as error:  # whatever it is: a thread that ended would leave the table old without a word
                unforeseen = not isinstance(error, CacheError | OSError)
                trouble = f"{type(error).__name__}: {error}" if unforeseen else str(error)
                if trouble != self.trouble:
                    _log.warning("%s", trouble, exc_info=unforeseen)
                self.trouble = trouble
            self.all_read.set()
            self._ended.wait(self.seconds)

    def _read_new(self) -> Iterator[bool]:
        """Read piece by piece; yields for each piece whether it changed the table."""
        specs = Store.open(self.store.path).features()  # an open store remembers the features that it has read
        if any(name in specs and specs[name] != old.spec for name, old in self._growing.items()):
            self.store = Store.open(self.store.path)
        for name in [name for name, old in self._growing.items() if specs.get(name) != old.spec]:
            del self._growing[name]
            self._number += 1
            yield True
        for name, spec in specs.items():
            if name not in self._growing:
                self._growing[name] = _Growing(spec)
                self._number += 1
        self._total = self.store.n_partitions
        for partition in range(len(self._ids), self._total):
            self._add_rows(partition)
            self._add_receipts(partition)
            yield True
        for partition in range(self._total):
            yield self._add_receipts(partition)
        yield self._read_members()

    def _add_rows(self, partition: int) -> None:
        records = self.store.rows(partition)
        self._ids.append(np.frombuffer(b"".join(row.id for row in records), dtype=np.uint8).reshape(-1, ID_BYTES))
        self._slots.append(np.array([row.slot for row in records], dtype=np.int64))
        for row in records:
            texts = (row.simple, row.complex, row.image, f"{row.simple}\n{row.complex}".casefold())
            for column, text in zip(self._texts, texts, strict=True):
                column.append(text)
        self._starts.append(self._starts[-1] + len(records))
        self._number += 1

    def _add_receipts(self, partition: int) -> bool:
        """Add the new receipts of a partition; returns whether there were any."""
        added = False
        for name, growing in self._growing.items():
            if partition in growing.states or (name, partition) in self._damaged:
                continue
            try:
                receipt = self.store.receipt(name, partition)
                if receipt is not None:
                    self._add_receipt(name, growing, receipt)
                    added = True
            except CacheError as error:
                self._damaged[name, partition] = str(error)
        self._number += added
        return added

    def _add_receipt(self, name: str, growing: _Growing, receipt: Receipt) -> None:
        partition, missing = receipt.partition, list(receipt.missing)
        states = np.full(len(self._ids[partition]), State.VALUE, dtype=np.uint8)
        states[missing] = State.MISSING
        if (array := _token_array(growing.spec)) is not None:
            stored = self.store.read(name, self._slots[partition], [array])
            lengths = np.asarray(token_counts(growing.spec, stored)[0]).astype(np.int32)
            lengths[missing] = -1
            growing.lengths[partition] = lengths
        growing.reasons |= {self._starts[partition] + row: reason for row, reason in receipt.missing.items()}
        growing.bytes_on_disk += sum(shard.bytes for shard in receipt.shards.values())
        growing.states[partition] = states

    def _read_members(self) -> bool:
        slots = np.concatenate(self._slots) if self._slots else np.zeros(0, dtype=np.int64)
        n_slots = int(slots.max(initial=-1)) + 1
        members = {}
        for name in self.store.datasets():
            by_slot = self.store.members(name)
            members[name] = np.pad(by_slot, (0, max(0, n_slots - len(by_slot))))[slots]
        same = members.keys() == self._members.keys() and all(
            np.array_equal(rows, self._members[name]) for name, rows in members.items()
        )
        self._members = members
        self._number += not same
        return not same

    def _snapshot(self) -> Table:
        """The table of everything read so far; the last one if nothing has changed."""
        return self.table if self.table.number == self._number else self._new_table()

    def _new_table(self) -> Table:
        n_rows = len(self._texts[0])
        members = {name: np.pad(rows, (0, n_rows - len(rows))) for name, rows in self._members.items()}
        return Table(
            number=self._number,
            ids=np.concatenate(self._ids) if self._ids else np.zeros((0, ID_BYTES), dtype=np.uint8),
            slots=np.concatenate(self._slots) if self._slots else np.zeros(0, dtype=np.int64),
            simple=self._texts[0],
            complex=self._texts[1],
            image=self._texts[2],
            searched=self._texts[3],
            features={name: self._column(growing) for name, growing in sorted(self._growing.items())},
            members=members,
            partitions_read=len(self._ids),
            partitions_total=self._total,
        )

    def _column(self, growing: _Growing) -> FeatureColumn:
        return FeatureColumn(
            growing.spec,
            self._joined(growing.states, State.PENDING, np.uint8),
            self._joined(growing.lengths, -1, np.int32) if _token_array(growing.spec) else None,
            dict(growing.reasons),
            len(growing.states),
            growing.bytes_on_disk,
        )

    def _joined(self, parts: dict[int, np.ndarray], absent: int, dtype: type) -> np.ndarray:
        """One value for each row, `absent` for rows of partitions that are not in `parts`."""
        columns = [parts.get(p, np.full(len(ids), absent, dtype=dtype)) for p, ids in enumerate(self._ids)]
        return np.concatenate(columns) if columns else np.zeros(0, dtype=dtype)


def _token_array(spec: FeatureSpec) -> str | None:
    """The array with the number of a row's tokens; None for a feature without tokens."""
    return next((name for name in TOKEN_ARRAYS if name in spec.arrays), None)
