"""The bytes of one file: a shard of checked chunks with an index at its end, or a single checked chunk.

With codec `raw`, chunk i of a shard lies at i * (chunk bytes + 4), and the index follows from the shape alone. So rows
are read by offset, and writing is one copy. The bytes are those of zarr-python's codec pipeline, which is many times
slower. Packed chunks lie one behind the other, and the index tells where.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sur.cache.errors import CorruptStore
from sur.cache.format.checksum import CRC_BYTES, chunk_fault, crc32c, with_crc, without_crc
from sur.cache.format.codecs import pack, unpack
from sur.cache.format.dtypes import stored_dtype
from sur.cache.format.spec import ArraySpec

OWN_CHUNK_BYTES = 512  # rows at least this large get a chunk, and so a checksum, of their own
NOWHERE = 2**64 - 1  # offset and length of a chunk that is not stored (all zero)


@dataclass(frozen=True)
class Layout:
    """Places of chunks and index in the shards of one array."""

    spec: ArraySpec
    rows_per_shard: int

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Element type on disk."""
        return stored_dtype(self.spec.dtype)

    @cached_property
    def rows_per_chunk(self) -> int:
        """1 for rows of `OWN_CHUNK_BYTES` or more, else all rows of the shard."""
        return 1 if self.spec.nbytes >= OWN_CHUNK_BYTES else self.rows_per_shard

    @cached_property
    def chunks(self) -> int:
        """Number of chunks in a shard."""
        return self.rows_per_shard // self.rows_per_chunk

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk, unpacked and without its checksum."""
        return self.rows_per_chunk * self.spec.nbytes

    @cached_property
    def index_bytes(self) -> int:
        """Bytes of the index: offset and length of each chunk as uint64, and the CRC32C of the index."""
        return self.chunks * 16 + CRC_BYTES

    @cached_property
    def raw_places(self) -> list[tuple[int, int]]:
        """Offset and length of each chunk with its checksum, the same in every shard of codec `raw`."""
        stride = self.chunk_bytes + CRC_BYTES
        return [(number * stride, stride) for number in range(self.chunks)]

    def encode(self, values: np.ndarray) -> tuple[list[bytes | memoryview], np.ndarray]:
        """The pieces of a shard, to be written one after the other, and each chunk's CRC32C (uint32; 0 if not stored).

        values: (rows, *shape). The pieces of codec `raw` share its memory. Chunks behind the last row are not stored.
        """
        chunks = self._chunks(np.ascontiguousarray(values))
        index = np.full((self.chunks, 2), NOWHERE, dtype="<u8")
        crcs = np.zeros(self.chunks, dtype="<u4")
        pieces: list[bytes | memoryview] = []
        position = 0
        for number, chunk in enumerate(chunks):
            content = pack(self.spec.codec, chunk.view(self.dtype)) if self.spec.packed else chunk.data
            crcs[number] = crc32c(content)
            pieces += (content, crcs[number].tobytes())
            index[number] = position, len(content) + CRC_BYTES
            position += len(content) + CRC_BYTES
        return [*pieces, with_crc(index.tobytes())], crcs

    def _chunks(self, values: np.ndarray) -> np.ndarray:
        """The stored chunks of contiguous values, each as bytes: uint8 (chunks, chunk bytes)."""
        if self.rows_per_chunk > 1:
            padded = np.zeros((self.rows_per_shard, *self.spec.shape), self.dtype)
            padded[: len(values)] = values
            values = padded
        return values.reshape(-1).view(np.uint8).reshape(-1, self.chunk_bytes)

    def read_index(self, data: bytes | np.ndarray, size: int, where: str) -> np.ndarray:
        """Offset and length of each chunk, uint64 (chunks, 2), from the last bytes of a shard of `size` bytes.

        Raises:
            CorruptStore: the index does not have its checksum, or names places outside the shard.
        """
        content = without_crc(bytes(data[-self.index_bytes :]), where)
        if len(content) != self.chunks * 16:
            raise CorruptStore(f"{where}: too short to hold the index of {self.chunks} chunks.")
        index = np.frombuffer(content, dtype="<u8").reshape(self.chunks, 2)
        offset, length = index[index[:, 0] != NOWHERE].T
        end = size - self.index_bytes
        if (length < CRC_BYTES).any() or (length > end).any() or (offset > end - np.minimum(length, end)).any():
            raise CorruptStore(f"{where}: its index names places outside its {size:,} bytes.")
        return index

    def decode_chunk(self, data: np.ndarray, target: np.ndarray, where: str) -> None:
        """Elements of one chunk from its bytes (uint8, without the checksum), into `target` (uint8).

        Raises:
            CorruptStore: the codec cannot read them.
        """
        if not self.spec.packed:
            target[...] = data
            return
        try:
            unpack(self.spec.codec, data, target.view(self.dtype))
        except ValueError as error:
            raise CorruptStore(f"{where}: {error}.") from error

    def fault(self, data: bytes, crcs: np.ndarray) -> str:
        """Where the bytes of a shard differ from chunks with the checksums `crcs`; "" if nowhere."""
        try:
            index = self.read_index(data, len(data), "")
        except CorruptStore:
            return "in its index"
        if not self.spec.packed and any(
            stored not in (raw, (NOWHERE, NOWHERE))
            for stored, raw in zip(map(tuple, index.tolist()), self.raw_places, strict=True)
        ):
            return "in its index"
        damaged = [
            number
            for number, (offset, length) in enumerate(index.tolist())
            if (crcs[number] if offset == NOWHERE else chunk_fault(data[offset : offset + length], crcs[number]))
        ]
        return f"in {len(damaged)} of its chunks, first {damaged[0]}" if damaged else ""


def file_fault(data: bytes, crcs: np.ndarray, layout: Layout | None) -> str:
    """Where a file differs from chunks with the checksums `crcs`; without a layout it is one chunk."""
    if layout is not None:
        return layout.fault(data, crcs)
    return "in its only chunk" if chunk_fault(data, crcs[0]) else ""


def encode_texts(texts: Sequence[str]) -> bytes:
    """Bytes of Zarr's vlen-utf8 codec: count, then length and UTF-8 of each text."""
    parts = [struct.pack("<I", len(texts))]
    for text in texts:
        encoded = text.encode()
        parts += (struct.pack("<I", len(encoded)), encoded)
    return b"".join(parts)


def decode_texts(data: bytes, expected: int, where: str) -> list[str]:
    """The `expected` number of texts in bytes that `encode_texts` made.

    Raises:
        CorruptStore: other bytes, or another number of texts.
    """
    try:
        (count,), position, texts = struct.unpack_from("<I", data), 4, []
        if count != expected:
            raise CorruptStore(f"{where}: expected {expected} texts, found {count}.")
        for _ in range(count):
            (length,) = struct.unpack_from("<I", data, position)
            texts.append(data[position + 4 : position + 4 + length].decode())
            position += 4 + length
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptStore(f"{where}: not texts of this format: {error}.") from error
    return texts
