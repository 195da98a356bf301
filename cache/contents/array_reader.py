"""Rows of one array, read straight from the shard files and checked.

`gather` reads single rows by their place in the shard, `whole` reads a shard at once. `gather` compares the CRC32C of a
chunk with the receipt when this reader touches the chunk for the first time. Later it trusts the cache of the operating
system. `whole` compares all chunks every time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from threading import Lock

import numpy as np

from sur.cache.errors import CorruptStore
from sur.cache.format.checksum import CRC_BYTES, crc32c
from sur.cache.format.receipts import ShardReceipt
from sur.cache.format.shard import NOWHERE, Layout
from sur.cache.storage.base import OpenFile, Storage


@dataclass
class _Shard:
    """One shard: the key of its file, (offset, length) and checksum of each chunk, and which chunks were checked."""

    key: str
    places: Sequence[tuple[int, int]] | np.ndarray
    crcs: np.ndarray
    checked: bytearray


class ArrayReader:
    """Reads one array; `key_of` gives the key of a partition's file, `receipt_of` its receipt.

    Rows that are too small for a chunk of their own (under 512 bytes) stay in memory once their shard has been read.
    """

    def __init__(
        self,
        storage: Storage,
        key_of: Callable[[int], str],
        layout: Layout,
        receipt_of: Callable[[int], ShardReceipt],
    ) -> None:
        self.layout = layout
        self.number = next(_numbers)  # identifies the reader among all of the process
        self.storage = storage
        self._key_of = key_of
        self._receipt_of = receipt_of
        self._shards: dict[int, _Shard] = {}
        self._small = np.empty((0, layout.spec.nbytes), dtype=np.uint8)
        self._growing = Lock()

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """Rows at `slots`, int64 (n,), as stored elements (n, *row shape).

        Raises:
            CorruptStore: a checksum or a size does not match.
        """
        out = np.empty((len(slots), *self.layout.spec.shape), dtype=self.layout.dtype)
        if len(slots):
            rows = out.reshape(len(slots), -1).view(np.uint8)
            if self.layout.rows_per_chunk == 1:
                self._gather_large(slots, rows)
            else:
                with self._growing:
                    self._gather_small(slots, rows)
        return out

    def whole(self, partition: int, rows: int) -> np.ndarray:
        """The first `rows` rows of a partition, read at once, every chunk checked: (rows, *row shape)."""
        layout, where = self.layout, self.storage.where(self._key_of(partition))
        out = np.empty((rows, *layout.spec.shape), dtype=layout.dtype)
        flat = out.reshape(rows, -1).view(np.uint8)
        if layout.rows_per_chunk == 1 and not layout.spec.packed and self.storage.random_reads:
            file, shard = self.open_file(partition), self._shard(partition)
            for place in range(rows):
                self._read_row(file.read_into, shard, place, flat[place], again=True)
            return out
        file = self.open_file(partition)
        data = np.empty(file.size, dtype=np.uint8)
        file.read_into(data, 0)
        shard = self._shard(partition, data)
        if layout.rows_per_chunk > 1:
            flat[...] = self._chunk(shard, 0, data, where)[:rows]
            return out
        for row in range(rows):
            offset, length = map(int, shard.places[row])
            if offset == NOWHERE:
                flat[row] = 0
                continue
            content = data[offset : offset + length - CRC_BYTES]
            _check(where, row, content, shard.crcs)
            layout.decode_chunk(content, flat[row], where)
        return out

    def _gather_large(self, slots: np.ndarray, rows: np.ndarray) -> None:
        """Read first what the system holds in memory, and announce the rest, which the disk fetches meanwhile."""
        partitions, places = (numbers.tolist() for numbers in np.divmod(slots, self.layout.rows_per_shard))
        waiting = []
        for number, (file, shard) in enumerate(self._sources(partitions)):
            if not self._read_row(file.read_now, shard, places[number], rows[number]):
                waiting.append(number)
        for number, (file, shard) in zip(waiting, self._sources([partitions[n] for n in waiting]), strict=True):
            self._read_row(file.read_into, shard, places[number], rows[number])

    def _sources(self, partitions: Iterable[int]) -> Iterator[tuple[OpenFile, _Shard]]:
        """File and shard of each partition, one after the other: a batch may touch more files than may be open."""
        for partition in partitions:
            yield _open_files.get(self, partition), self._shards.get(partition) or self._shard(partition)

    def forget(self, partition: int) -> None:
        """Drop everything remembered about a partition that was written anew."""
        self._shards.pop(partition, None)
        _open_files.drop(self, partition)

    def _read_row(
        self,
        read: Callable[[np.ndarray, int], bool],
        shard: _Shard,
        place: int,
        row: np.ndarray,
        again: bool = False,
    ) -> bool:
        """Read one row into `row`, uint8 (row bytes); False if `read` failed. `again` checks a checked chunk anew."""
        offset, length = shard.places[place]
        if offset == NOWHERE:
            row[...] = 0
            return True
        packed = self.layout.spec.packed
        content = np.empty(int(length) - CRC_BYTES, dtype=np.uint8) if packed else row
        if not read(content, int(offset)):
            return False
        if again or not shard.checked[place]:
            _check(self.storage.where(shard.key), place, content, shard.crcs)
            shard.checked[place] = True
        if packed:
            self.layout.decode_chunk(content, row, self.storage.where(shard.key))
        return True

    def _gather_small(self, slots: np.ndarray, rows: np.ndarray) -> None:
        per_shard = self.layout.rows_per_shard
        partitions = np.unique(slots // per_shard).tolist()
        if (missing := (partitions[-1] + 1) * per_shard - len(self._small)) > 0:
            self._small = np.concatenate([self._small, np.empty((missing, rows.shape[1]), dtype=np.uint8)])
        for partition in partitions:
            shard = self._shards.get(partition) or self._shard(partition)
            if not shard.checked[0]:
                data = np.empty(int(sum(shard.places[0])), dtype=np.uint8)
                self.open_file(partition).read_into(data, 0)
                where = self.storage.where(self._key_of(partition))
                self._small[partition * per_shard :][:per_shard] = self._chunk(shard, 0, data, where)
                shard.checked[0] = True
        np.take(self._small, slots, axis=0, out=rows)

    def _chunk(self, shard: _Shard, number: int, data: np.ndarray, where: str) -> np.ndarray:
        """Rows of one chunk of a shard's bytes, checked and unpacked, uint8 (rows, row bytes)."""
        offset, length = map(int, shard.places[number])
        content = data[offset : offset + length - CRC_BYTES]
        _check(where, number, content, shard.crcs)
        rows = np.empty((self.layout.rows_per_chunk, self.layout.spec.nbytes), dtype=np.uint8)
        self.layout.decode_chunk(content, rows.reshape(-1), where)
        return rows

    def _shard(self, partition: int, data: np.ndarray | None = None) -> _Shard:
        """Places and checksums of a shard's chunks, read once; `data` are the bytes of the whole shard, if at hand."""
        if partition not in self._shards:
            receipt, layout = self._receipt_of(partition), self.layout
            where = self.storage.where(self._key_of(partition))
            crcs = receipt.crcs()
            if len(crcs) != layout.chunks:
                raise CorruptStore(f"{where}: {len(crcs)} checksums in its receipt for {layout.chunks} chunks.")
            places = layout.raw_places
            if layout.spec.packed:
                if receipt.bytes < layout.index_bytes:
                    raise CorruptStore(f"{where}: too short to hold its index.")
                tail = np.empty(layout.index_bytes, np.uint8) if data is None else data
                if data is None:
                    self.open_file(partition).read_into(tail, receipt.bytes - layout.index_bytes)
                places = layout.read_index(tail, receipt.bytes, where)
                if (crcs[places[:, 0] == NOWHERE] != 0).any():
                    raise CorruptStore(f"{where}: its index lacks chunks that its receipt names. Run verify.")
            self._shards[partition] = _Shard(self._key_of(partition), places, crcs, bytearray(len(crcs)))
        return self._shards[partition]

    def open_file(self, partition: int, scattered: bool = False) -> OpenFile:
        """The shard file of a partition, opened; its size is compared with the receipt."""
        key, expected = self._key_of(partition), self._receipt_of(partition).bytes
        try:
            file = self.storage.open(key, scattered)
        except FileNotFoundError as error:
            raise CorruptStore(
                f"{self.storage.where(key)} is gone, but its partition has a receipt. Run verify."
            ) from error
        if file.size != expected:
            where = self.storage.where(key)
            raise CorruptStore(f"{where}: expected {expected:,} bytes, found {file.size:,}. Run verify.")
        return file


class _OpenFiles:
    """Shard files that random reads keep open, for all readers of the process."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, int], OpenFile] = OrderedDict()
        self._lock = Lock()

    def get(self, reader: ArrayReader, partition: int) -> OpenFile:
        """The open file of a partition; the least recently used file is closed when too many are open."""
        key = (reader.number, partition)
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
        file = reader.open_file(partition, scattered=True)
        with self._lock:
            self._files[key] = file
            while len(self._files) > reader.storage.max_open_files:
                self._files.popitem(last=False)
        return file

    def drop(self, reader: ArrayReader, partition: int) -> None:
        """Close a partition's file."""
        with self._lock:
            self._files.pop((reader.number, partition), None)


_open_files = _OpenFiles()
_numbers = count()


def _check(where: str, chunk: int, data: np.ndarray, crcs: np.ndarray) -> None:
    if crc32c(data) != crcs[chunk]:
        raise CorruptStore(f"{where}: chunk {chunk} does not have the checksum of its receipt. Run verify.")
