"""The rows of a store: ids and texts in fixed partitions, appended and never moved."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from threading import Lock

import numpy as np

from sur.cache.errors import BadValues, CorruptStore
from sur.cache.format import metadata
from sur.cache.format.checksum import CRC_BYTES, with_crc, without_crc
from sur.cache.format.receipts import (
    ROW_RECEIPTS,
    Receipt,
    ShardReceipt,
    partition_directory,
    partition_numbers,
    publish_receipt,
    read_receipt,
    receipt_numbers,
)
from sur.cache.format.shard import decode_texts, encode_texts, file_fault
from sur.cache.format.spec import ID_BYTES, RowRecord, json_digest
from sur.cache.storage.base import Storage, join

TEXTS = ("simple", "complex", "image")
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
        """Number of committed partitions, those of other processes included.

        Raises:
            CorruptStore: on the first call, a partition's receipt or ids are lost or damaged.
        """
        with self._growing:
            if not self._ids:
                self._ids = self._storage.map(self._read_ids, range(self._whole()))
            while self._committed(len(self._ids)):
                self._ids.append(self._read_ids(len(self._ids)))
            return len(self._ids)

    def _whole(self) -> int:
        """Number of partitions that have a receipt. Raises CorruptStore when more were committed: absence is no end."""
        counted = self.counted()  # before the receipts are listed: a writer publishes these before it counts
        numbers = receipt_numbers(self._storage, ROW_RECEIPTS)
        whole = next((place for place, number in enumerate(numbers) if place != number), len(numbers))
        while self._committed(whole):
            whole += 1  # since the list was made
        after = numbers[-1:] > [whole]
        if after or whole < counted:
            found = "partitions after it are there" if after else f"the columns of the rows count {counted} partitions"
            raise CorruptStore(
                f"{self._storage.where(join(partition_directory(ROW_RECEIPTS, whole), metadata.FILE))} is gone, but "
                f"{found}.",
                "Restore it by `sur verify CONFIG --repair`, or from a copy; until then no row is read or added.",
            )
        return whole

    def counted(self) -> int:
        """Number of partitions by the shapes of the columns; the smallest, so that one damaged shape invents none."""

        def count(column: int) -> int | None:
            with suppress(CorruptStore, LookupError, TypeError):
                slots = (metadata.read_metadata(self._storage, f"rows/{columns[column]}") or {})["shape"][0]
                return slots // self._per_partition if type(slots) is int else None
            return None

        columns = ("id", *TEXTS)
        counts = self._storage.map(count, range(len(columns)))
        return min((number for number in counts if number is not None), default=0)

    def committed(self) -> int:
        """Number of partitions that were ever committed, those included whose receipt is lost or damaged."""
        for number in reversed(receipt_numbers(self._storage, ROW_RECEIPTS)):
            with suppress(CorruptStore):
                self.receipt(number)
                return max(number + 1, self.counted())
        return self.counted()

    def n_files(self) -> int:
        """Number of files in the partitions that have a receipt's folder."""
        return (1 + len(TEXTS)) * len(partition_numbers(self._storage, ROW_RECEIPTS))

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

    def n_slots(self) -> int:
        """Number of slots, the empty ones of each partition included."""
        return self.n_partitions * self._per_partition

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
        columns = [self._texts(name, partition) for name in TEXTS]
        return [
            RowRecord(id.tobytes(), *(column[row] for column in columns), slot=first + row)
            for row, id in enumerate(ids)
        ]

    def moved(self, places: Mapping[bytes, str]) -> dict[str, str]:
        """The places of pictures, by slot, that differ from the stored ones; `places` has them by row id."""
        if not places:
            return {}
        texts = self._storage.map(lambda partition: self._texts("image", partition), range(self.n_partitions))
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
        directory = partition_directory(ROW_RECEIPTS, partition)
        receipt = read_receipt(self._storage, directory)
        problem = "gone" if receipt is None else self.mismatch(receipt, partition)
        if receipt is None or problem:
            raise CorruptStore(f"{self._storage.where(join(directory, metadata.FILE))}: {problem}.")
        return receipt

    def replaced(self) -> bool:
        """Whether the rows on disk are others than those that this object has read."""
        return self.n_partitions > 0 and self.receipt(0).rows_digest != self.digest(0)

    def mismatch(self, receipt: Receipt, partition: int) -> str:
        """Why a receipt does not belong to this partition; "" if it does."""
        if (receipt.partition, receipt.identity_digest) != (partition, IDENTITY):
            return f"not the receipt of rows partition {partition}"
        shards = receipt.shards
        if set(shards) != {"id", *TEXTS} or any(shard.chunks != 1 for shard in shards.values()):
            return "receipt of other columns"
        return "receipt of more rows than a partition has" if receipt.rows > self._per_partition else ""

    def append(self, rows: Iterable[RowRecord]) -> int:
        """Add rows with new ids in new partitions; returns how many. The caller holds the store's lock."""
        added = 0
        self._whole()
        for folder in ("rows", ROW_RECEIPTS):
            self._storage.clear_leftovers(folder)
        fresh = self._fresh(rows)
        while batch := list(islice(fresh, self._per_partition)):
            self._write(self.n_partitions, batch)
            added += len(batch)
        return added

    def _committed(self, partition: int) -> bool:
        return self._storage.size(join(partition_directory(ROW_RECEIPTS, partition), metadata.FILE)) is not None

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

        It is written only if the result agrees with its receipt, but for the places of pictures, which may have moved.
        If the receipt is damaged or gone, the digest of the ids must be one of `digests`, those in the receipts of
        features, or all rows be among `records`. Returns whether it was written. The caller holds the store's lock.
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
        records = list(records)
        known = {(row.id, row.simple, row.complex, row.image) for row in records}
        rows = self._from_intact(columns, records)
        files, restored = self._encode(partition, rows)
        if receipt is not None:
            sound = replace(restored, shards={**restored.shards, "image": receipt.shards["image"]}).agrees(receipt)
        else:
            from_source = rows and {(row.id, row.simple, row.complex, row.image) for row in rows} <= known
            sound = restored.rows_digest in digests or from_source
        if not sound:
            return False
        for name, data in files.items():
            self._storage.publish(self.key(name, partition), data)
        publish_receipt(self._storage, partition_directory(ROW_RECEIPTS, partition), restored)
        return True

    def _from_intact(self, columns: Mapping[str, bytes], records: list[RowRecord]) -> list[RowRecord]:
        """Rows of a partition from its intact columns; [] if these and the records are not enough."""
        texts = {}
        for name in TEXTS:
            with suppress(CorruptStore, KeyError):
                texts[name] = decode_texts(columns[name], self._per_partition, name)
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
        publish_receipt(self._storage, partition_directory(ROW_RECEIPTS, partition), receipt)

    def _read(self, column: str, partition: int) -> bytes:
        key, receipt = self.key(column, partition), self.receipt(partition)
        data, where = self._storage.read(key), self._storage.where(key)
        if data is None:
            raise CorruptStore(f"{where} is gone, but partition {partition} has its receipt.")
        content = without_crc(data, where)
        if data[-CRC_BYTES:] != receipt.shards[column].crcs().astype("<u4").tobytes():
            raise CorruptStore(f"{where} is intact but not the file that the receipt of partition {partition} names.")
        return content

    def _texts(self, column: str, partition: int) -> list[str]:
        """A column of texts, of all slots of a partition."""
        where = self._storage.where(self.key(column, partition))
        return decode_texts(self._read(column, partition), self._per_partition, where)

    def _read_ids(self, partition: int) -> np.ndarray:
        content, receipt = self._read("id", partition), self.receipt(partition)
        ids = content[: receipt.rows * ID_BYTES]
        if len(content) != self._per_partition * ID_BYTES or hashlib.sha256(ids).hexdigest() != receipt.rows_digest:
            raise CorruptStore(f"{self._storage.where(self.key('id', partition))}: not the ids that its receipt names.")
        return np.frombuffer(ids, dtype=np.uint8).reshape(-1, ID_BYTES)
