"""The rows of a store: ids and texts in fixed partitions, appended and never moved."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from threading import Lock

import numpy as np

from sur.cache.errors import BadValues, CorruptStore
from sur.cache.format import metadata
from sur.cache.format.checksum import CRC_BYTES, with_crc, without_crc
from sur.cache.format.receipts import Receipt, ShardReceipt, partition_directory, publish_receipt, read_receipt
from sur.cache.format.shard import decode_texts, encode_texts, file_fault
from sur.cache.format.spec import ID_BYTES, RowRecord, json_digest
from sur.cache.storage.base import Storage, join

TEXTS = ("simple", "complex", "image")
RECEIPTS = "receipts/rows"
IDENTITY = json_digest({"kind": "rows", "columns": ["id", *TEXTS]})


class Rows:
    """Append-only table of rows. Partitions are remembered once read; later ones are looked for on disk."""

    def __init__(self, storage: Storage, rows_per_partition: int) -> None:
        self._storage = storage
        self._per_partition = rows_per_partition
        self._ids: list[np.ndarray] = []
        self._counts = np.zeros(0, dtype=np.int64)
        self._growing = Lock()

    @property
    def n_partitions(self) -> int:
        """Number of committed partitions, those of other processes included."""
        with self._growing:
            if not self._ids:
                numbers = {int(name) for name in self._storage.folders(RECEIPTS) if name.isdigit()}
                committed = self._storage.map(self._committed, range(max(numbers, default=-1) + 1))
                self._ids = self._storage.map(self._read_ids, range((*committed, False).index(False)))
            while self._committed(len(self._ids)):
                self._ids.append(self._read_ids(len(self._ids)))
            return len(self._ids)

    def ids(self, partition: int) -> np.ndarray:
        """Ids of the filled slots of a partition, uint8 (rows, 16)."""
        if not 0 <= partition < len(self._ids) and not 0 <= partition < self.n_partitions:
            raise IndexError(f"Partition {partition} of {self.n_partitions}: no such partition.")
        return self._ids[partition]

    def counts(self) -> np.ndarray:
        """Filled slots of each partition, int64 (partitions,)."""
        if len(self._counts) != self.n_partitions:
            self._counts = np.array([len(ids) for ids in self._ids], dtype=np.int64)
        return self._counts

    def require(self, slots: np.ndarray) -> None:
        """Raises IndexError when one of `slots`, int64 (n,), holds no row."""
        partitions, places = np.divmod(slots, self._per_partition)
        if len(slots) and partitions.max() >= len(self._counts):
            self.counts()  # another process may have added it
        counts = self._counts
        empty = (slots < 0) | (partitions >= len(counts))
        empty[~empty] = places[~empty] >= counts[partitions[~empty]]
        if empty.any():
            raise IndexError(f"Slot {slots[empty][0]} holds no row ({int(empty.sum())} such slots asked for).")

    def slot_ids(self) -> np.ndarray:
        """Ids of all slots, uint8 (slots, 16); zero where a slot is empty."""
        ids = np.zeros((self.n_partitions, self._per_partition, ID_BYTES), dtype=np.uint8)
        for partition in range(len(ids)):
            ids[partition, : len(self._ids[partition])] = self._ids[partition]
        return ids.reshape(-1, ID_BYTES)

    def digest(self, partition: int) -> str:
        """SHA-256, hex, of the partition's ids."""
        return hashlib.sha256(self.ids(partition).tobytes()).hexdigest()

    def records(self, partition: int) -> list[RowRecord]:
        """Rows of one partition in slot order."""
        ids, first = self.ids(partition), partition * self._per_partition
        columns = [decode_texts(self._read(name, partition)) for name in TEXTS]
        return [
            RowRecord(id.tobytes(), *(column[row] for column in columns), slot=first + row)
            for row, id in enumerate(ids)
        ]

    def moved(self, places: Mapping[bytes, str]) -> dict[str, str]:
        """The places of pictures, by slot, that differ from the stored ones; `places` has them by row id."""
        if not places:
            return {}
        texts = self._storage.map(lambda p: decode_texts(self._read("image", p)), range(self.n_partitions))
        now = {}
        for partition, stored in enumerate(texts):
            for row, row_id in enumerate(self.ids(partition)):
                if (place := places.get(row_id.tobytes(), stored[row])) != stored[row]:
                    now[str(partition * self._per_partition + row)] = place
        return now

    def receipt(self, partition: int) -> Receipt:
        """Receipt of a committed partition.

        Raises:
            CorruptStore: it is damaged, or the receipt of another partition.
        """
        directory = partition_directory(RECEIPTS, partition)
        receipt = read_receipt(self._storage, directory)
        if receipt is None or self.mismatch(receipt, partition):
            where = self._storage.where(join(directory, metadata.FILE))
            raise CorruptStore(f"{where}: not the receipt of rows partition {partition}.")
        return receipt

    def replaced(self) -> bool:
        """Whether the rows on disk are others than those that this object has read."""
        return self.n_partitions > 0 and self.receipt(0).rows_digest != self.digest(0)

    def mismatch(self, receipt: Receipt, partition: int) -> str:
        """Why a receipt does not belong to this partition; "" if it does."""
        if (receipt.partition, receipt.identity_digest) != (partition, IDENTITY):
            return f"not the receipt of rows partition {partition}"
        return ""

    def append(self, rows: Iterable[RowRecord]) -> int:
        """Add rows with new ids in new partitions; returns how many. The caller holds the store's lock."""
        added = 0
        numbers = [int(name) for name in self._storage.folders(RECEIPTS) if name.isdigit()]
        if max(numbers, default=-1) >= self.n_partitions and self._committed(max(numbers)):
            path = self._storage.where(join(partition_directory(RECEIPTS, self.n_partitions), metadata.FILE))
            raise CorruptStore(
                f"{path} is gone, but partitions after it are there. Restore it with `sur verify CONFIG --repair` "
                "(or from a copy) before adding rows."
            )
        fresh = self._fresh(rows)
        while batch := list(islice(fresh, self._per_partition)):
            self._write(self.n_partitions, batch)
            added += len(batch)
        return added

    def _committed(self, partition: int) -> bool:
        return self._storage.size(join(partition_directory(RECEIPTS, partition), metadata.FILE)) is not None

    def documents(self, slots: int) -> dict[str, dict]:
        """Metadata of the columns for this number of slots, by folder."""
        documents = {"rows/id": metadata.id_array(slots, self._per_partition)}
        for name in TEXTS:
            documents[f"rows/{name}"] = metadata.text_array(name, slots, self._per_partition)
        return documents

    def publish_metadata(self) -> None:
        """Write the metadata of the columns for the present number of slots."""
        for directory, document in self.documents(self.n_partitions * self._per_partition).items():
            metadata.publish_metadata(self._storage, directory, document)

    def key(self, column: str, partition: int) -> str:
        """Key of the file of one column of one partition."""
        return join("rows", column, metadata.chunk_file(partition, 2 if column == "id" else 1))

    def _fresh(self, rows: Iterable[RowRecord]) -> Iterator[RowRecord]:
        known = {row_id.tobytes() for p in range(self.n_partitions) for row_id in self._ids[p]}
        for row in rows:
            if len(row.id) != ID_BYTES or not any(row.id):
                raise BadValues(f"A row id is {ID_BYTES} bytes, not all zero (see cache.row_id); got {row.id!r}.")
            if row.id not in known:
                known.add(row.id)
                yield row

    def restore(self, partition: int, records: Iterable[RowRecord], digests: Collection[str]) -> bool:
        """Write a damaged partition anew from its intact columns and from `records` of the data source.

        It is written only if the result has the ids of its receipt: a row is known by its content, the place of its
        picture may be another one now. If the receipt is damaged, the digest of the ids must be one of `digests`, those
        in the receipts of features. Returns whether it was written. The caller holds the
        store's lock.
        """
        try:
            receipt = self.receipt(partition)
        except CorruptStore:
            receipt = None
        columns: dict[str, bytes] = {}
        for name in ("id", *TEXTS):
            data = self._storage.read(self.key(name, partition)) or b""
            if receipt is None or not file_fault(data, receipt.shards[name].crcs(), None):
                with suppress(CorruptStore):
                    columns[name] = without_crc(data, "")
        rows = self._from_intact(columns, list(records))
        files, restored = self._encode(partition, rows)
        if restored.rows_digest not in (digests if receipt is None else (receipt.rows_digest,)):
            return False
        for name, data in files.items():
            self._storage.publish(self.key(name, partition), data)
        publish_receipt(self._storage, partition_directory(RECEIPTS, partition), restored)
        return True

    @staticmethod
    def _from_intact(columns: Mapping[str, bytes], records: list[RowRecord]) -> list[RowRecord]:
        """Rows of a partition from its intact columns; [] if these and the records are not enough."""
        texts = {name: decode_texts(columns[name]) for name in TEXTS if name in columns}
        by_id = {record.id: record for record in records}
        if "id" in columns:
            slots = [columns["id"][at : at + ID_BYTES] for at in range(0, len(columns["id"]), ID_BYTES)]
            ids = [id for id in slots if any(id)]
        elif len(texts) == len(TEXTS):
            by_texts = {tuple(getattr(record, name) for name in TEXTS): record.id for record in records}
            ids = [by_texts.get(row, b"") for row in zip(*texts.values(), strict=True) if any(row)]
        else:
            return []
        if len(texts) == len(TEXTS):
            return [
                RowRecord(id, texts["simple"][row], texts["complex"][row], texts["image"][row])
                for row, id in enumerate(ids)
            ]
        return [by_id[id] for id in ids] if all(id in by_id for id in ids) else []

    def _encode(self, partition: int, rows: list[RowRecord]) -> tuple[dict[str, bytes], Receipt]:
        empty = self._per_partition - len(rows)
        ids = b"".join(row.id for row in rows)
        contents = {"id": ids + bytes(empty * ID_BYTES)}
        for name in TEXTS:
            contents[name] = encode_texts([getattr(row, name) for row in rows] + [""] * empty)
        files = {name: with_crc(content) for name, content in contents.items()}
        shards = {
            name: ShardReceipt.of(len(data), np.frombuffer(data[-CRC_BYTES:], dtype="<u4"))
            for name, data in files.items()
        }
        return files, Receipt(IDENTITY, partition, len(rows), hashlib.sha256(ids).hexdigest(), shards)

    def _write(self, partition: int, rows: list[RowRecord]) -> None:
        files, receipt = self._encode(partition, rows)
        for name, data in files.items():
            self._storage.publish(self.key(name, partition), data)
        publish_receipt(self._storage, partition_directory(RECEIPTS, partition), receipt)

    def _read(self, column: str, partition: int) -> bytes:
        key, receipt = self.key(column, partition), self.receipt(partition)
        data, where = self._storage.read(key), self._storage.where(key)
        if data is None:
            raise CorruptStore(f"{where} is gone, but partition {partition} has its receipt.")
        content = without_crc(data, where)
        if data[-CRC_BYTES:] != receipt.shards[column].crcs().astype("<u4").tobytes():
            raise CorruptStore(f"{where} is intact but not the file that the receipt of partition {partition} names.")
        return content

    def _read_ids(self, partition: int) -> np.ndarray:
        ids = np.frombuffer(self._read("id", partition), dtype=np.uint8).reshape(-1, ID_BYTES)
        return ids[: self.receipt(partition).rows]
