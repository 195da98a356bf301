"""Check every byte of every file against receipts and metadata, and find files that should not exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sur.cache.contents.datasets import FOLDER
from sur.cache.contents.features import SECTIONS, Feature
from sur.cache.contents.rows import RECEIPTS, TEXTS, Rows
from sur.cache.errors import CorruptStore
from sur.cache.format import metadata
from sur.cache.format.receipts import Receipt, ShardReceipt, partition_directory, read_receipt
from sur.cache.format.root import version_of
from sur.cache.format.shard import Layout, file_fault
from sur.cache.format.spec import FeatureSpec
from sur.cache.storage.base import Storage, join
from sur.cache.storage.keys import Key, parse_key

STRAY = "not part of the store"


@dataclass(frozen=True)
class Damage:
    """One damaged, missing or foreign file.

    feature: "rows", the name of a feature or an asset, or "" for the store itself.
    partition: -1 if the file belongs to no partition.
    file: Key of the file, relative to the store.
    """

    feature: str
    partition: int
    file: str
    problem: str


def verify(storage: Storage, rows_per_partition: int, progress: Callable[[str], None] | None = None) -> list[Damage]:
    """All damage of a store; an empty list means that every byte is as it was committed.

    Partitions that are not written yet are not damage. Files of an interrupted write are, until they are written anew.
    """
    verification = _Verification(storage, rows_per_partition, progress)
    verification.rows()
    for section in SECTIONS:
        for name in storage.folders(section):
            verification.feature(section, name)
    verification.datasets()
    verification.strays()
    return verification.damage


class _Verification:
    def __init__(self, storage: Storage, rows_per_partition: int, progress: Callable[[str], None] | None) -> None:
        self.storage = storage
        self.per_partition = rows_per_partition
        self.progress = progress or (lambda file: None)
        self.damage: list[Damage] = []
        self.seen: set[str] = set()
        numbers = receipt_numbers(storage, RECEIPTS)
        self.n_partitions = max(numbers, default=-1) + 1
        self.rows_digests: dict[int, str] = {}

    def rows(self) -> None:
        """Check the store's own metadata, the rows and their receipts."""
        self.document("", "", metadata.root(self.per_partition, version_of(self.storage)))
        for name in metadata.GROUPS:
            if name == FOLDER and next(self.storage.files(FOLDER), None) is None:
                continue  # format version 1 had no data sets
            self.document("", name, metadata.group())
        table = Rows(self.storage, self.per_partition)
        for directory, document in table.documents(self.n_partitions * self.per_partition).items():
            self.document("rows", directory, document)
        for partition in range(self.n_partitions):
            directory = partition_directory(RECEIPTS, partition)
            self.seen.update(table.key(column, partition) for column in ("id", *TEXTS))
            receipt = self.receipt(
                "rows", partition, directory, lambda receipt, p=partition: table.mismatch(receipt, p)
            )
            if receipt is not None:
                self.rows_digests[partition] = receipt.rows_digest
                for column, shard in receipt.shards.items():
                    self.file("rows", partition, table.key(column, partition), shard, None)

    def datasets(self) -> None:
        """Check the data sets."""
        for name in self.storage.folders(FOLDER):
            directory = join(FOLDER, name)
            path = join(directory, metadata.FILE)
            self.seen.add(path)
            try:
                document = metadata.read_metadata(self.storage, directory)
                attributes = (document or {"attributes": {}})["attributes"]
                metadata.unseal(attributes, directory, directory)
                if document != metadata.group(attributes):
                    self.report("", -1, path, "not the metadata of a Zarr group")
            except CorruptStore as error:
                self.report("", -1, path, str(error))

    def feature(self, section: str, name: str) -> None:
        """Check one feature or asset: metadata, receipts, and every chunk of every array."""
        directory = join(section, name)
        try:
            document = metadata.read_metadata(self.storage, directory)
            attributes = metadata.unseal(document["attributes"], directory, directory) if document else None
        except CorruptStore as error:
            self.report(name, -1, join(directory, metadata.FILE), str(error))
            self.abandon(section, name)
            return
        if attributes is None:
            if next(self.storage.files(directory), None) is not None:
                self.report(name, -1, join(directory, metadata.FILE), "gone (or the feature was never finished)")
                self.abandon(section, name)
            return
        spec = FeatureSpec.from_attributes(name, attributes)
        feature = Feature(self.storage, section, spec, self.per_partition, self.rows_digests.get)
        slots = self.n_partitions * self.per_partition
        declared = {directory: metadata.group((document or {})["attributes"])}  # its digest was right
        for folder, expected in {**feature.documents(slots), **declared}.items():
            self.document(name, folder, expected)
        for partition in receipt_numbers(self.storage, feature.receipts):
            directory = partition_directory(feature.receipts, partition)
            self.seen.update(feature.key(array, partition) for array in spec.arrays)
            receipt = self.receipt(name, partition, directory, lambda r, p=partition: feature.mismatch(r, p))
            for array, shard in receipt.shards.items() if receipt else ():
                layout = feature.layouts[array] if section == "features" else None
                self.file(name, partition, feature.key(array, partition), shard, layout)

    def document(self, feature: str, directory: str, expected: Mapping[str, Any]) -> None:
        """Check one zarr.json whose content is known."""
        path = join(directory, metadata.FILE)
        self.seen.add(path)
        try:
            document = metadata.read_metadata(self.storage, directory)
        except CorruptStore as error:
            return self.report(feature, -1, path, str(error))
        if document is None:
            return self.report(feature, -1, path, "gone")
        for key in sorted({*expected, *document}):
            if document.get(key) != expected.get(key):
                problem = f"{key} is {document.get(key)!r}, expected {expected.get(key)!r}"
                self.report(feature, -1, path, problem)

    def receipt(
        self, feature: str, partition: int, directory: str, mismatch: Callable[[Receipt], str]
    ) -> Receipt | None:
        """Check one receipt; returns None if it cannot be trusted."""
        path = join(directory, metadata.FILE)
        self.seen.add(path)
        try:
            receipt = read_receipt(self.storage, directory)
        except CorruptStore as error:
            return self.report(feature, partition, path, str(error))
        if receipt is None:
            return self.report(feature, partition, path, "gone")
        if problem := mismatch(receipt):
            return self.report(feature, partition, path, problem)
        if metadata.read_metadata(self.storage, directory) != metadata.group(receipt.attributes()):
            self.report(feature, partition, path, "not the metadata of a Zarr group")
        return receipt

    def file(self, feature: str, partition: int, path: str, shard: ShardReceipt, layout: Layout | None) -> None:
        """Check one shard or chunk file against its receipt; damaged chunks are named."""
        self.seen.add(path)
        self.progress(path)
        data = self.storage.read(path)
        if data is None:
            return self.report(feature, partition, path, "gone, but has a receipt")
        if len(data) != shard.bytes:
            return self.report(feature, partition, path, f"has {len(data):,} bytes, expected {shard.bytes:,}")
        if fault := file_fault(data, shard.crcs(), layout):
            self.report(feature, partition, path, f"bytes differ from those committed {fault}".rstrip())

    def strays(self) -> None:
        """Report files that belong to nothing, unless a live writer is at work on them."""
        for path in self.storage.files():
            if path in self.seen:
                continue
            if self.storage.is_lock(path):
                continue
            leftover = self.storage.leftover(path)
            key = parse_key(path.removesuffix(".partial") if leftover else path) or Key("stray", "", "", -1)
            if self.storage.busy(self._lock(key)):
                continue
            if leftover:
                problem = "left by an interrupted write; the next run replaces it"
            elif key.kind == "values" and not self._foreign(key, path):
                problem = "has no receipt (write interrupted, or receipt gone); the next run recomputes it"
            else:
                key, problem = Key("stray", "", "", -1), STRAY
            self.report(key.feature, key.partition, path, problem)

    def _foreign(self, key: Key, path: str) -> bool:
        """Whether a file with the name of a values file belongs to no array of its feature."""
        array = path.rpartition("/")[0]
        return key.section != "" and f"{array}/{metadata.FILE}" not in self.seen

    def _lock(self, key: Key) -> str:
        """Folder that the writer of a file locks."""
        if key.section in SECTIONS and key.partition >= 0:
            return partition_directory(f"receipts/{key.section}/{key.feature}", key.partition)
        return ""

    def abandon(self, section: str, name: str) -> None:
        """Leave the files of a feature unchecked, because its metadata is damaged."""
        for folder in (f"{section}/{name}", f"receipts/{section}/{name}"):
            self.seen.update(self.storage.files(folder))

    def report(self, feature: str, partition: int, path: str, problem: str) -> None:
        self.damage.append(Damage(feature, partition, path, problem))


def receipt_numbers(storage: Storage, receipts: str) -> list[int]:
    """Partitions that have a receipt file."""
    numbers = (name for name in storage.folders(receipts) if name.isdigit())
    return sorted(int(name) for name in numbers if storage.size(join(receipts, name, metadata.FILE)) is not None)
