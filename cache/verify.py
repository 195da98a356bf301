"""Re-check everything: every byte of every file against receipts, metadata and what should exist at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import metadata
from cache.errors import CorruptStore
from cache.features import SECTIONS, Feature
from cache.files import PARTIAL, busy
from cache.receipts import Receipt, ShardReceipt, partition_directory, read_receipt
from cache.records import FeatureSpec
from cache.rows import Rows
from cache.shard import Layout


@dataclass(frozen=True)
class Damage:
    """One thing wrong. `feature` is "rows", a feature's or asset's name, or "" for the store itself;
    `partition` is -1 where it concerns none; `file` is relative to the store."""

    feature: str
    partition: int
    file: str
    problem: str


def inspect(root: Path, rows_per_partition: int, progress: Callable[[str], None] | None = None) -> list[Damage]:
    """All damage found in a store; an empty list means that every byte is as it was committed.

    Partitions not written yet are no damage; what an interrupted write left is, until it is written anew.
    """
    inspection = _Inspection(root, rows_per_partition, progress)
    inspection.rows()
    for section in SECTIONS:
        for directory in sorted((root / section).glob("*/")):
            inspection.feature(section, directory.name)
    inspection.strays()
    return inspection.damage


class _Inspection:
    def __init__(self, root: Path, rows_per_partition: int, progress: Callable[[str], None] | None) -> None:
        self.root = root
        self.per_partition = rows_per_partition
        self.progress = progress or (lambda file: None)
        self.damage: list[Damage] = []
        self.seen: set[Path] = set()
        numbers = _partitions(root / "receipts" / "rows")
        self.n_partitions = max(numbers, default=-1) + 1
        self.rows_digests: dict[int, str] = {}

    def rows(self) -> None:
        """The store's own metadata, the rows and their receipts."""
        self.document("", self.root, metadata.root(self.per_partition))
        for name in metadata.GROUPS:
            self.document("", self.root / name, metadata.group())
        table = Rows(self.root, self.per_partition)
        for directory, document in table.documents(self.n_partitions * self.per_partition).items():
            self.document("rows", directory, document)
        for partition in range(self.n_partitions):
            directory = partition_directory(self.root / "receipts" / "rows", partition)
            receipt = self.receipt(
                "rows", partition, directory, lambda receipt, p=partition: table.mismatch(receipt, p)
            )
            if receipt is not None:
                self.rows_digests[partition] = receipt.rows_digest
                for column, shard in receipt.shards.items():
                    self.file("rows", partition, table.path(column, partition), shard, None)

    def feature(self, section: str, name: str) -> None:
        """One feature or asset: metadata, receipts, every chunk of every array."""
        directory = self.root / section / name
        try:
            document = metadata.read_metadata(directory)
            attributes = metadata.unseal(document["attributes"], directory) if document else None
        except CorruptStore as error:
            self.report(name, -1, directory / metadata.FILE, str(error))
            self.abandon(section, name)
            return
        if attributes is None:
            if any(directory.rglob("*")):
                self.report(name, -1, directory / metadata.FILE, "gone (or the feature was never finished)")
                self.abandon(section, name)
            return
        spec = FeatureSpec.from_attributes(name, attributes)
        feature = Feature(self.root, section, spec, self.per_partition, self.rows_digests.get)
        slots = self.n_partitions * self.per_partition
        for folder, expected in feature.documents(slots).items():
            self.document(name, folder, expected)
        for partition in _partitions(feature.receipts):
            directory = partition_directory(feature.receipts, partition)
            self.seen.update(feature.path(array, partition) for array in spec.arrays)
            receipt = self.receipt(name, partition, directory, lambda r, p=partition: feature.mismatch(r, p))
            for array, shard in receipt.shards.items() if receipt else ():
                layout = feature.layouts[array] if section == "features" else None
                self.file(name, partition, feature.path(array, partition), shard, layout)

    def document(self, feature: str, directory: Path, expected: Mapping[str, Any]) -> None:
        """One zarr.json whose content is known."""
        path = directory / metadata.FILE
        self.seen.add(path)
        try:
            document = metadata.read_metadata(directory)
        except CorruptStore as error:
            return self.report(feature, -1, path, str(error))
        if document is None:
            return self.report(feature, -1, path, "gone")
        for key in sorted({*expected, *document}):
            if document.get(key) != expected.get(key):
                found = f"{key} is {document.get(key)!r}, expected {expected.get(key)!r}"
                self.report(feature, -1, path, found)

    def receipt(
        self, feature: str, partition: int, directory: Path, mismatch: Callable[[Receipt], str]
    ) -> Receipt | None:
        """One receipt; None if it is not to be trusted."""
        path = directory / metadata.FILE
        self.seen.add(path)
        try:
            receipt = read_receipt(directory)
        except CorruptStore as error:
            return self.report(feature, partition, path, str(error))
        if receipt is None:
            return self.report(feature, partition, path, "gone")
        if problem := mismatch(receipt):
            return self.report(feature, partition, path, problem)
        if metadata.read_metadata(directory) != metadata.group(receipt.attributes()):
            self.report(feature, partition, path, "not the metadata of a Zarr group")
        return receipt

    def file(self, feature: str, partition: int, path: Path, shard: ShardReceipt, layout: Layout | None) -> None:
        """One shard or chunk file against its receipt; damaged chunks are named."""
        self.seen.add(path)
        self.progress(str(path.relative_to(self.root)))
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return self.report(feature, partition, path, "gone, but has a receipt")
        if len(data) != shard.bytes:
            return self.report(feature, partition, path, f"has {len(data):,} bytes, expected {shard.bytes:,}")
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            chunks = layout.damaged(data, shard.crcs()) if layout and layout.chunks > 1 else []
            where = f" in {len(chunks)} of its chunks, first {chunks[0]}" if chunks else ""
            self.report(feature, partition, path, f"bytes differ from those committed{where}")

    def strays(self) -> None:
        """Files that belong to nothing, unless a live writer is at work on them."""
        for folder, _, names in os.walk(self.root):
            for name in sorted(names):
                path = Path(folder) / name
                if path in self.seen:
                    continue
                parts = path.relative_to(self.root).parts
                feature, partition, lock = self._owner(parts)
                if busy(lock):
                    continue
                if name.endswith(PARTIAL):
                    problem = "left by an interrupted write; the next run replaces it"
                elif partition >= 0 and name.startswith("c."):
                    problem = "has no receipt (write interrupted, or receipt gone); the next run recomputes it"
                else:
                    problem = "not part of the store"
                self.report(feature, partition, path, problem)

    def _owner(self, parts: Sequence[str]) -> tuple[str, int, Path]:
        if parts[0] == "receipts" and len(parts) > 3 and parts[1] in SECTIONS:
            partition = int(parts[3]) if parts[3].isdigit() else -1
            return parts[2], partition, self.root.joinpath(*parts[:4])
        if parts[0] in SECTIONS and len(parts) == 4:
            number = (parts[3].split(".") + [""])[1]
            partition = int(number) if parts[0] == "features" and number.isdigit() else 0
            return (
                parts[1],
                partition,
                partition_directory(self.root / "receipts" / parts[0] / parts[1], partition),
            )
        return ("rows" if "rows" in parts[:2] else ""), -1, self.root

    def abandon(self, section: str, name: str) -> None:
        """Nothing more can be said of a feature without its metadata."""
        for parent in (self.root / section / name, self.root / "receipts" / section / name):
            self.seen.update(path for path in parent.rglob("*") if path.is_file())

    def report(self, feature: str, partition: int, path: Path, problem: str) -> None:
        self.damage.append(Damage(feature, partition, str(path.relative_to(self.root)), problem))


def _partitions(receipts: Path) -> list[int]:
    """Partitions that have a receipt file."""
    folders = (path.parent.name for path in receipts.glob(f"*/{metadata.FILE}"))
    return sorted(int(name) for name in folders if name.isdigit())
