"""Check every byte of every file against receipts and metadata, and find files that should not exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sur.cache.contents.datasets import FOLDER, dataset_names, recorded_members
from sur.cache.contents.features import SECTIONS, Feature, read_declaration
from sur.cache.contents.rows import TEXTS, Rows
from sur.cache.errors import CorruptStore, NotWritable, StorageFailed
from sur.cache.format import metadata
from sur.cache.format.receipts import (
    ROW_RECEIPTS,
    Receipt,
    ShardReceipt,
    partition_directory,
    read_receipt,
    receipt_numbers,
)
from sur.cache.format.root import listed_datasets, version_of
from sur.cache.format.shard import Layout, file_fault
from sur.cache.storage.base import Storage, join
from sur.cache.storage.keys import Key, parse_key

STRAY = "not part of the store"
_REWRITTEN = "rewritten with other blanks or in another order"
_NAMED = 1000  # lost receipts that are named; a damaged number may promise any number of them


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
    Others may write meanwhile: damage is looked at a second time, while nobody adds rows or declares features.
    """
    found = _Verification(storage, rows_per_partition, progress).damages()
    if not found:
        return []
    with ExitStack() as lock, suppress(NotWritable, StorageFailed):  # whoever may only read looks without it
        lock.enter_context(storage.locked("", wait=True))
        return confirmed(storage, rows_per_partition, found, locked=True)
    return confirmed(storage, rows_per_partition, found)


def confirmed(
    storage: Storage, rows_per_partition: int, damages: Sequence[Damage], locked: bool = False
) -> list[Damage]:
    """Damage found a second time in the files of `damages`, unless a writer is at work on them.

    `locked`: the caller holds the store's lock.
    """
    verification = _Verification(storage, rows_per_partition, None, damages, locked)
    files = {damage.file for damage in damages}
    found = (damage for damage in verification.damages() if damage.file in files)
    return [damage for damage in found if not verification.busy(lock_folder(parse_key(damage.file)))]


class _Verification:
    """One look at a store; `of` limits the reading of values to the partitions of earlier damage."""

    def __init__(
        self,
        storage: Storage,
        rows_per_partition: int,
        progress: Callable[[str], None] | None,
        of: Sequence[Damage] | None = None,
        locked: bool = False,
    ) -> None:
        self.storage = storage
        self.per_partition = rows_per_partition
        self.progress = progress or (lambda file: None)
        self.only = None if of is None else {(damage.feature, damage.partition) for damage in of}
        self.locked = locked
        self.damage: list[Damage] = []
        self.seen: set[str] = set()
        self.table = Rows(storage, rows_per_partition)
        self.n_partitions = 0
        self.rows_digests: dict[int, str] = {}

    def damages(self) -> list[Damage]:
        """Everything that is damaged, missing or foreign."""
        self.n_partitions = self.table.committed()
        self.rows()
        for section in SECTIONS:
            receipts = f"receipts/{section}"
            known = {n for n in self.storage.folders(receipts) if receipt_numbers(self.storage, f"{receipts}/{n}")}
            for name in sorted({*self.storage.folders(section), *known}):
                self.feature(section, name)
        self.datasets()
        self.strays()
        return self.damage

    def busy(self, folder: str) -> bool:
        """Whether another process holds the lock of a folder."""
        return not (self.locked and folder == "") and self.storage.busy(folder)

    def rows(self) -> None:
        """Check the store's own metadata, the rows and their receipts."""
        version = version_of(self.storage)
        self.document("", "", metadata.root(self.per_partition, listed_datasets(self.storage), version))
        for name in metadata.GROUPS:
            if name == FOLDER and version == 1 and next(self.storage.files(FOLDER), None) is None:
                continue  # format version 1 had no data sets
            self.document("", name, metadata.group())
        table, numbers = self.table, receipt_numbers(self.storage, ROW_RECEIPTS)
        gone = islice((number for number in range(self.n_partitions) if number not in set(numbers)), _NAMED)
        for directory, document in table.documents(self.n_partitions * self.per_partition).items():
            self.document("rows", directory, document)
        for partition in sorted({*numbers, *gone}):
            directory = partition_directory(ROW_RECEIPTS, partition)
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
        for name in sorted({*self.storage.folders(FOLDER), *dataset_names(self.storage)}):
            directory = join(FOLDER, name)
            path = join(directory, metadata.FILE)
            if parse_key(path) is None:
                continue  # no name of a data set
            self.seen.add(path)
            try:
                document = metadata.read_metadata(self.storage, directory)
                if document is None:
                    self.report("", -1, path, "gone, so nothing tells which rows the data set has")
                    continue
                slots, of_rows = len(recorded_members(self.storage, directory, document)), self.n_partitions
                if slots > of_rows * self.per_partition:
                    self.report("", -1, path, f"counts {slots} slots, but the rows have {of_rows} partitions")
                self.document("", directory, metadata.group(document["attributes"]))
            except CorruptStore as error:
                self.report("", -1, path, error.fault)

    def feature(self, section: str, name: str) -> None:
        """Check one feature or asset: metadata, receipts, and every chunk of every array."""
        directory = join(section, name)
        if parse_key(join(directory, metadata.FILE)) is None:
            return  # no name of a feature
        try:
            spec = read_declaration(self.storage, section, name)
            document = metadata.read_metadata(self.storage, directory)
        except CorruptStore as error:
            self.report(name, -1, join(directory, metadata.FILE), error.fault)
            self.abandon(section, name)
            return
        if spec is None or document is None:
            receipts = receipt_numbers(self.storage, f"receipts/{section}/{name}")
            if receipts or next(self.storage.files(directory), None) is not None:
                what = "its receipts are there" if receipts else "other files of it are there"
                self.report(name, -1, join(directory, metadata.FILE), f"gone, but {what}")
                self.abandon(section, name)
            return
        feature = Feature(self.storage, section, spec, self.per_partition, self.rows_digests.get)
        slots = self.n_partitions * self.per_partition
        declared = {directory: metadata.group(document["attributes"])}  # its digest was right
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
        """Check one zarr.json whose content is known, byte for byte unless zarr-python consolidated it."""
        path = join(directory, metadata.FILE)
        self.seen.add(path)
        try:
            document = metadata.read_metadata(self.storage, directory)
        except CorruptStore as error:
            return self.report(feature, -1, path, error.fault)
        if document is None:
            return self.report(feature, -1, path, "gone")
        copies = document.pop("consolidated_metadata", None)
        for key in sorted({*expected, *document}):
            if document.get(key) != expected.get(key):
                problem = f"{key} is {document.get(key)!r}, expected {expected.get(key)!r}"
                self.report(feature, -1, path, problem)
        if copies is not None:
            if metadata.stale(self.storage, directory, copies):
                self.report(feature, -1, path, "its consolidated metadata are older than the arrays beside it")
        elif document == expected and metadata.rewritten(self.storage, directory, expected):
            self.report(feature, -1, path, _REWRITTEN)

    def receipt(
        self, feature: str, partition: int, directory: str, mismatch: Callable[[Receipt], str]
    ) -> Receipt | None:
        """Check one receipt; returns None if it cannot be trusted."""
        path = join(directory, metadata.FILE)
        self.seen.add(path)
        try:
            receipt = read_receipt(self.storage, directory)
            document = metadata.read_metadata(self.storage, directory)
        except CorruptStore as error:
            return self.report(feature, partition, path, error.fault)
        if receipt is None or document is None:
            return self.report(feature, partition, path, "gone")
        if problem := mismatch(receipt):
            return self.report(feature, partition, path, problem)
        if document != metadata.group(receipt.attributes()):
            self.report(feature, partition, path, "not the metadata of a Zarr group")
        elif metadata.rewritten(self.storage, directory, document):
            self.report(feature, partition, path, _REWRITTEN)
        return receipt

    def file(self, feature: str, partition: int, path: str, shard: ShardReceipt, layout: Layout | None) -> None:
        """Check one shard or chunk file against its receipt; damaged chunks are named."""
        self.seen.add(path)
        if self.only is not None and (feature, partition) not in self.only:
            return
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
        folders = {path[:end] for path in self.seen for end, letter in enumerate(path) if letter == "/"}
        for path in self.storage.files():
            if path in self.seen or path in folders:  # a link to a folder whose files were checked is no stray
                continue
            if self.storage.is_lock(path):
                continue
            leftover = self.storage.leftover(path)
            key = parse_key(path.removesuffix(".partial") if leftover else path)
            if self.busy(lock_folder(key)):
                continue
            if leftover:
                problem = "left by an interrupted write; the next run replaces it"
            elif key is not None and key.kind == "values" and not self._foreign(key, path):
                problem = "has no receipt (write interrupted, or receipt gone); the next run recomputes it"
            else:
                key, problem = None, STRAY
            self.report(key.feature if key else "", key.partition if key else -1, path, problem)

    def _foreign(self, key: Key, path: str) -> bool:
        """Whether a file with the name of a values file belongs to no array of its feature."""
        array = path.rpartition("/")[0]
        return key.section != "" and f"{array}/{metadata.FILE}" not in self.seen

    def abandon(self, section: str, name: str) -> None:
        """Leave the files of a feature unchecked, because its metadata is damaged."""
        for folder in (f"{section}/{name}", f"receipts/{section}/{name}"):
            self.seen.update(self.storage.files(folder))

    def report(self, feature: str, partition: int, path: str, problem: str) -> None:
        self.damage.append(Damage(feature, partition, path, problem))


def lock_folder(key: Key | None) -> str:
    """Folder that the writer of a file locks; "" for the store's own lock."""
    if key is not None and key.section in SECTIONS and key.partition >= 0:
        return partition_directory(f"receipts/{key.section}/{key.feature}", key.partition)
    return ""
