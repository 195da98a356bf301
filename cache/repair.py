"""Mend what `verify` found: forget what can be computed again, write anew what follows from the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cache import metadata
from cache.catalog import Catalog
from cache.errors import CorruptStore
from cache.features import SECTIONS
from cache.keys import Key, parse_key
from cache.receipts import partition_directory, read_receipt
from cache.records import ID_BYTES, RowRecord
from cache.rows import RECEIPTS, Rows
from cache.shard import CRC_BYTES
from cache.storage import Storage, join
from cache.verify import STRAY, Damage, receipt_numbers


def recovered_size(storage: Storage) -> int | None:
    """Rows in a partition, read off the metadata of `rows/id`; None unless that stands and the store's own does not."""
    try:
        document = metadata.read_metadata(storage, "")
        metadata.unseal((document or {"attributes": {}})["attributes"].get("sur_cache"), "")
        return None
    except CorruptStore:
        pass
    try:
        ids = metadata.read_metadata(storage, "rows/id")
        size = int((ids or {})["chunk_grid"]["configuration"]["chunk_shape"][0])
    except (CorruptStore, KeyError, TypeError, ValueError):
        return None
    bytes_of_ids = storage.size("rows/id/c.0.0")
    return size if bytes_of_ids in (None, size * ID_BYTES + CRC_BYTES) else None


def _row_digests(storage: Storage, partition: int) -> set[str]:
    """Digests of a partition's row ids that the intact receipts of features give."""
    found = set()
    for name in storage.folders("receipts/features"):
        try:
            receipt = read_receipt(storage, partition_directory(f"receipts/features/{name}", partition))
        except CorruptStore:
            continue
        if receipt is not None:
            found.add(receipt.rows_digest)
    return found


def _sound(storage: Storage, key: Key) -> bool:
    """Whether a partition has an intact receipt and the values that it names."""
    folder = partition_directory(f"receipts/{key.section}/{key.feature}", key.partition)
    try:
        receipt = read_receipt(storage, folder)
    except CorruptStore:
        return False
    if receipt is None or receipt.partition != key.partition:
        return False
    if metadata.read_metadata(storage, folder) != metadata.group(receipt.attributes()):
        return False
    for array, shard in receipt.shards.items():
        folder = f"{key.section}/{key.feature}/{array}/"
        found = [name for name in storage.files(folder.rstrip("/")) if _is_shard(name, key.partition)]
        data = storage.read(found[0]) if len(found) == 1 else None
        if data is None or hashlib.sha256(data).hexdigest() != shard.sha256:
            return False
    return True


def _is_shard(name: str, partition: int) -> bool:
    key = parse_key(name)
    return key is not None and key.kind == "values" and key.partition == partition


def repair(
    storage: Storage, rows_per_partition: int, damages: Sequence[Damage], records: Sequence[RowRecord] = ()
) -> list[Damage]:
    """Mend damage, and return what is beyond repair: rows that are gone, and files that are no part of the store.

    Damaged values lose their receipt, damaged declarations of features and data sets are removed: the next extraction
    computes the former and writes the latter. All other metadata follows from the rest and is written anew. Damaged
    partitions of rows are restored from what is intact of them and from `records`, the rows of the data source.
    """
    beyond = []
    rows = Rows(storage, rows_per_partition)
    lost = {damage.partition for damage in damages if damage.feature == "rows" and damage.partition >= 0}
    restored = {partition for partition in lost if rows.restore(partition, records, _row_digests(storage, partition))}
    committed = max(receipt_numbers(storage, RECEIPTS), default=-1) + 1
    for damage in damages:
        key = parse_key(damage.file)
        if damage.feature == "rows" and (damage.partition in restored or damage.partition >= committed):
            continue  # restored, or left by an append that was interrupted, which the next one replaces
        if storage.leftover(damage.file) or (key is not None and key.kind == "declaration"):
            storage.remove(damage.file)
        elif key is None or damage.problem == STRAY or (damage.feature == "rows" and damage.partition >= 0):
            beyond.append(damage)
        elif key.section in SECTIONS and key.partition >= 0:
            receipt = partition_directory(f"receipts/{key.section}/{key.feature}", key.partition)
            with storage.locked(receipt, wait=True):
                if not _sound(storage, key):  # another process may have computed it anew since
                    storage.remove(join(receipt, metadata.FILE))
    for group in metadata.GROUPS:
        metadata.publish_metadata(storage, group, metadata.group())
    metadata.publish_metadata(storage, "", metadata.root(rows_per_partition))
    slots = committed * rows_per_partition
    for folder, document in rows.documents(slots).items():
        metadata.publish_metadata(storage, folder, document)
    catalog = Catalog(storage, rows, rows_per_partition)
    for section in SECTIONS:
        for feature in catalog.intact(section):
            feature.publish_metadata(slots)
    return beyond
