"""Mend damage: remove receipts of values that can be computed again, and rewrite all other metadata."""

from __future__ import annotations

from collections.abc import Sequence

from sur.cache.contents.catalog import Catalog
from sur.cache.contents.features import SECTIONS
from sur.cache.contents.rows import RECEIPTS, Rows
from sur.cache.errors import CorruptStore, UnknownFeature
from sur.cache.format import metadata
from sur.cache.format.receipts import partition_directory, read_receipt
from sur.cache.format.root import write_root
from sur.cache.format.shard import file_fault
from sur.cache.format.spec import RowRecord
from sur.cache.storage.base import Storage, join
from sur.cache.storage.keys import Key, parse_key
from sur.cache.upkeep.verify import STRAY, Damage, receipt_numbers


def _row_digests(storage: Storage, partition: int) -> set[str]:
    """Digests of a partition's row ids in the intact receipts of features."""
    digests = set()
    for name in storage.folders("receipts/features"):
        try:
            receipt = read_receipt(storage, partition_directory(f"receipts/features/{name}", partition))
        except CorruptStore:
            continue
        if receipt is not None:
            digests.add(receipt.rows_digest)
    return digests


def _sound(storage: Storage, catalog: Catalog, key: Key) -> bool:
    """Whether a partition has an intact receipt, and the values that the receipt names."""
    try:
        feature = catalog.get(key.feature, key.section, fresh=True)
        receipt = feature.receipt(key.partition)
    except (CorruptStore, UnknownFeature, IndexError):
        return False
    if receipt is None:
        return False
    document = metadata.read_metadata(storage, feature.receipt_directory(key.partition))
    values = {array: storage.read(feature.key(array, key.partition)) or b"" for array in receipt.shards}
    return document == metadata.group(receipt.attributes()) and all(
        not file_fault(values[array], shard.crcs(), feature.layouts[array] if key.section == "features" else None)
        for array, shard in receipt.shards.items()
    )


def repair(
    storage: Storage, rows_per_partition: int, damages: Sequence[Damage], records: Sequence[RowRecord] = ()
) -> list[Damage]:
    """Mend damage; returns the damage beyond repair: rows that are lost, and files that are not part of the store.

    Damaged values lose their receipt, and damaged declarations of features and data sets are removed. The next
    extraction computes the values and writes the declarations. All other metadata follows from the rest, and is
    rewritten. Damaged partitions of rows are restored from their intact columns and from `records`, the rows of the
    data source.
    """
    beyond = []
    rows = Rows(storage, rows_per_partition)
    damaged = {damage.partition for damage in damages if damage.feature == "rows" and damage.partition >= 0}
    restored = {
        partition for partition in damaged if rows.restore(partition, records, _row_digests(storage, partition))
    }
    committed = max(receipt_numbers(storage, RECEIPTS), default=-1) + 1
    catalog = Catalog(storage, rows, rows_per_partition)
    for damage in damages:
        key = parse_key(damage.file)
        if damage.feature == "rows" and (damage.partition in restored or damage.partition >= committed):
            continue  # restored, or the rest of an interrupted append, which the next append replaces
        if storage.leftover(damage.file) or (key is not None and key.kind == "declaration"):
            storage.remove(damage.file)
        elif key is None or damage.problem == STRAY or (damage.feature == "rows" and damage.partition >= 0):
            beyond.append(damage)
        elif key.section in SECTIONS and key.partition >= 0:
            receipt = partition_directory(f"receipts/{key.section}/{key.feature}", key.partition)
            with storage.locked(receipt, wait=True):
                if not _sound(storage, catalog, key):  # another process may have computed it anew by now
                    storage.remove(join(receipt, metadata.FILE))
    write_root(storage, rows_per_partition)
    slots = committed * rows_per_partition
    for folder, document in rows.documents(slots).items():
        metadata.publish_metadata(storage, folder, document)
    for section in SECTIONS:
        for feature in catalog.intact(section, fresh=True):
            feature.publish_metadata(slots)
    return beyond
