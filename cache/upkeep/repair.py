"""Mend damage: remove receipts of values that can be computed again, and rewrite all other metadata."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace

from sur.cache.contents.catalog import Catalog
from sur.cache.contents.datasets import dataset_names
from sur.cache.contents.features import SECTIONS, read_declaration
from sur.cache.contents.rows import Rows
from sur.cache.errors import CorruptStore, NotWritable, StoreBusy, UnknownFeature
from sur.cache.format import metadata
from sur.cache.format.receipts import Receipt, partition_directory, publish_receipt, read_receipt
from sur.cache.format.root import write_root
from sur.cache.format.shard import file_fault
from sur.cache.format.spec import RowRecord
from sur.cache.storage.base import Storage, join
from sur.cache.storage.keys import Key, parse_key
from sur.cache.upkeep.verify import STRAY, Damage, confirmed, lock_folder


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


def _sound_receipt(storage: Storage, catalog: Catalog, key: Key) -> Receipt | None:
    """Receipt of a partition if it is intact and has the values that it names."""
    try:
        feature = catalog.get(key.feature, key.section, fresh=True)
        receipt = feature.receipt(key.partition)
    except (CorruptStore, UnknownFeature, IndexError):
        return None
    if receipt is None:
        return None
    values = {array: storage.read(feature.key(array, key.partition)) or b"" for array in receipt.shards}
    intact = all(
        not file_fault(values[array], shard.crcs(), feature.layouts[array] if key.section == "features" else None)
        for array, shard in receipt.shards.items()
    )
    return receipt if intact else None


def _mend_partition(storage: Storage, catalog: Catalog, key: Key) -> None:
    """Forget a partition of a feature, unless its values are intact: another process may have computed it anew."""
    directory = partition_directory(f"receipts/{key.section}/{key.feature}", key.partition)
    with storage.locked(directory, wait=True):
        receipt = _sound_receipt(storage, catalog, key)
        if receipt is None:
            storage.remove(join(directory, metadata.FILE))
        else:
            publish_receipt(storage, directory, receipt)


def _mend_declaration(storage: Storage, catalog: Catalog, key: Key, file: str) -> None:
    """Remove a damaged declaration, or the receipts of a feature of which nothing else is left.

    A declaration whose content is right is written as this package writes it.
    """
    directory = file.rpartition("/")[0]
    name = directory.rpartition("/")[2]
    try:
        document = metadata.read_metadata(storage, directory)
        if document is None:
            if key.section and next(storage.files(directory), None) is None:
                catalog.drop(name)
            return
        content = metadata.unseal(document["attributes"], directory, directory)
        if key.section:
            read_declaration(storage, key.section, name)
        metadata.publish_metadata(storage, directory, metadata.group(metadata.seal(content, directory)))
    except CorruptStore:
        storage.remove(file)


def _mend_leftover(storage: Storage, key: Key | None, file: str) -> None:
    """Remove the rest of an interrupted write, unless its writer is alive."""
    folder = lock_folder(key)
    with nullcontext(True) if folder == "" else storage.locked(folder, wait=False) as ours:
        if ours:
            storage.remove(file)


def repair(
    storage: Storage, rows_per_partition: int, damages: Sequence[Damage], records: Sequence[RowRecord] = ()
) -> list[Damage]:
    """Mend damage; returns the damage beyond repair: rows that are lost, and files that are not part of the store.

    Damaged values lose their receipt, and damaged declarations of features and data sets are removed. The next
    extraction computes the values and writes the declarations. All other metadata follows from the rest, and is
    rewritten. Damaged partitions of rows are restored from their intact columns and from `records`, the rows of the
    data source. The caller holds the store's lock: damage that was mended since it was found is left alone.
    """
    beyond = []
    damages = confirmed(storage, rows_per_partition, damages, locked=True) if damages else []
    rows = Rows(storage, rows_per_partition)
    damaged = {damage.partition for damage in damages if damage.feature == "rows" and damage.partition >= 0}
    restored = {
        partition for partition in damaged if rows.restore(partition, records, _row_digests(storage, partition))
    }
    committed = rows.committed()
    catalog = Catalog(storage, rows, rows_per_partition)
    for damage in damages:
        key = parse_key(damage.file)
        values = key is not None and key.kind == "values"
        if damage.feature == "rows" and (damage.partition in restored or (damage.partition >= committed and values)):
            continue  # restored, or the rest of an interrupted append, which the next append replaces
        try:
            storage.require_own(damage.file.rpartition("/")[0])
            if storage.leftover(damage.file):
                _mend_leftover(storage, parse_key(damage.file.removesuffix(".partial")), damage.file)
            elif key is None or damage.problem == STRAY or (damage.feature == "rows" and damage.partition >= 0):
                beyond.append(damage)
            elif key.kind == "declaration":
                _mend_declaration(storage, catalog, key, damage.file)
            elif key.section in SECTIONS and key.partition >= 0:
                _mend_partition(storage, catalog, key)
        except (NotWritable, StoreBusy) as error:  # behind a link, or being written
            beyond.append(replace(damage, problem=f"{damage.problem}; {error}"))
    write_root(storage, rows_per_partition, dataset_names(storage))
    slots = committed * rows_per_partition
    for folder, document in rows.documents(slots).items():
        metadata.publish_metadata(storage, folder, document)
    for section in SECTIONS:
        for feature in catalog.intact(section, fresh=True):
            with suppress(NotWritable):  # its folder is a link, perhaps to a feature of another store
                storage.require_own(feature.directory)
                feature.publish_metadata(slots)
    return beyond
