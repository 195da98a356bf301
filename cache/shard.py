"""The bytes of one file: a shard of checked chunks with an index at its end, or a single checked chunk.

With codec `raw`, chunk i of a shard lies at i * (chunk bytes + 4) and the index follows from the shape alone. So rows
are read by offset, and writing is one copy: both many times faster than, and byte for byte the same as, zarr-python's
codec pipeline. Packed chunks lie one behind the other, and the index says where.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import google_crc32c
import numpy as np

from cache.codecs import pack, unpack
from cache.dtypes import stored_dtype
from cache.errors import CorruptStore
from cache.records import ArraySpec

CRC_BYTES = 4
OWN_CHUNK_BYTES = 512  # rows at least this large get a chunk, and so a checksum, of their own
NOWHERE = 2**64 - 1  # offset and length of a chunk that is not stored (all zero)


@dataclass(frozen=True)
class Layout:
    """Where everything lies in each shard of one array."""

    spec: ArraySpec
    rows_per_shard: int

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Element type on disk."""
        return stored_dtype(self.spec.dtype)

    @cached_property
    def rows_per_chunk(self) -> int:
        """1 for rows of `OWN_CHUNK_BYTES` or more, else all of the shard."""
        return 1 if self.spec.nbytes >= OWN_CHUNK_BYTES else self.rows_per_shard

    @cached_property
    def chunks(self) -> int:
        """Chunks in a shard."""
        return self.rows_per_shard // self.rows_per_chunk

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk, unpacked and without its checksum."""
        return self.rows_per_chunk * self.spec.nbytes

    @cached_property
    def index_bytes(self) -> int:
        """Bytes of the index: offset and length as uint64 a chunk, and its CRC32C."""
        return self.chunks * 16 + CRC_BYTES

    def shard_bytes(self, rows: int) -> int:
        """Bytes of a shard file of so many rows, of codec `raw`; an estimate from above of the others'."""
        return self._stored(rows) * (self.chunk_bytes + CRC_BYTES) + self.index_bytes

    @cached_property
    def raw_places(self) -> list[tuple[int, int]]:
        """Offset and length of each chunk with its checksum, the same in every shard of codec `raw` that stores it."""
        stride = self.chunk_bytes + CRC_BYTES
        return [(number * stride, stride) for number in range(self.chunks)]

    def encode(self, values: np.ndarray) -> tuple[bytes | memoryview, np.ndarray]:
        """Bytes of a shard, and each chunk's CRC32C (uint32; 0 if not stored), of (rows, *shape) values.

        Chunks behind the last row are not stored.
        """
        return self._encode_packed(values) if self.spec.packed else self._encode_raw(values)

    def _stored(self, rows: int) -> int:
        """Chunks that hold `rows` rows."""
        return -(-rows // self.rows_per_chunk)

    def _encode_raw(self, values: np.ndarray) -> tuple[memoryview, np.ndarray]:
        stride, stored = self.chunk_bytes + CRC_BYTES, self._stored(len(values))
        data = np.zeros(self.shard_bytes(len(values)), dtype=np.uint8)
        chunks = data[: stored * stride].reshape(stored, stride)
        rows = np.ascontiguousarray(values).view(np.uint8) if values.ndim else values
        rows = rows.reshape(len(values), self.spec.nbytes)
        if self.rows_per_chunk == 1:
            chunks[: len(values), : self.chunk_bytes] = rows
        else:
            chunks[0, : rows.size] = rows.reshape(-1)
        crcs = np.zeros(self.chunks, dtype="<u4")
        crcs[:stored] = [crc32c(chunk) for chunk in chunks[:, : self.chunk_bytes]]
        chunks[:, self.chunk_bytes :] = crcs[:stored].view(np.uint8).reshape(stored, CRC_BYTES)
        index = np.full((self.chunks, 2), NOWHERE, dtype="<u8")
        index[:stored] = self.raw_places[:stored]
        data[-self.index_bytes :] = np.frombuffer(with_crc(index.tobytes()), dtype=np.uint8)
        return data.data, crcs

    def _encode_packed(self, values: np.ndarray) -> tuple[bytes, np.ndarray]:
        if self.rows_per_chunk > 1:
            chunk = np.zeros((1, self.rows_per_shard, *self.spec.shape), self.dtype)
            chunk[0, : len(values)] = values
            values = chunk
        index = np.full((self.chunks, 2), NOWHERE, dtype="<u8")
        crcs = np.zeros(self.chunks, dtype="<u4")
        parts, position = [], 0
        for number, chunk in enumerate(np.ascontiguousarray(values)):
            packed = with_crc(pack(self.spec.codec, chunk))
            index[number] = position, len(packed)
            crcs[number] = np.frombuffer(packed[-CRC_BYTES:], dtype="<u4")[0]
            parts.append(packed)
            position += len(packed)
        return b"".join([*parts, with_crc(index.tobytes())]), crcs

    def read_index(self, data: bytes | np.ndarray, where: str) -> np.ndarray:
        """Offset and length of each chunk, uint64 (chunks, 2), from the index's bytes.

        Raises:
            CorruptStore: the index does not have its checksum.
        """
        content = without_crc(bytes(data), where)
        return np.frombuffer(content, dtype="<u8").reshape(self.chunks, 2)

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
        """What is wrong with a shard's bytes whose chunks should have the checksums `crcs`; "" if nothing is."""
        try:
            index = self.read_index(data[-self.index_bytes :], "")
        except CorruptStore:
            return "in its index"
        if not self.spec.packed and any(
            here not in (there, (NOWHERE, NOWHERE))
            for here, there in zip(map(tuple, index.tolist()), self.raw_places, strict=True)
        ):
            return "in its index"
        found = [
            number
            for number, (offset, length) in enumerate(index.tolist())
            if (crcs[number] if offset == NOWHERE else chunk_fault(data[offset : offset + length], crcs[number]))
        ]
        return f"in {len(found)} of its chunks, first {found[0]}" if found else ""


def file_fault(data: bytes, crcs: np.ndarray, layout: Layout | None) -> str:
    """`Layout.fault`; without a layout the file is one chunk."""
    if layout is not None:
        return layout.fault(data, crcs)
    return "in its only chunk" if chunk_fault(data, crcs[0]) else ""


def chunk_fault(data: bytes, crc: np.uint32) -> bool:
    """Whether a chunk (its bytes and their CRC32C) is not the one whose checksum is `crc`."""
    return data[-CRC_BYTES:] != crc.astype("<u4").tobytes() or crc32c(data[:-CRC_BYTES]) != crc


def crc32c(data: bytes | np.ndarray) -> int:
    """CRC32C of contiguous bytes."""
    return google_crc32c.value(data)  # pyright: ignore[reportArgumentType]


def with_crc(data: bytes) -> bytes:
    """`data` followed by its CRC32C, as Zarr's crc32c codec writes it."""
    return data + struct.pack("<I", crc32c(data))


def without_crc(data: bytes, where: str) -> bytes:
    """Inverse of `with_crc`; `where` is for the message.

    Raises:
        CorruptStore: the checksum does not match.
    """
    content = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or struct.pack("<I", crc32c(content)) != data[-CRC_BYTES:]:
        raise CorruptStore(f"{where}: checksum (CRC32C) does not match its {len(data):,} bytes.")
    return content


def encode_texts(texts: Sequence[str]) -> bytes:
    """Bytes of Zarr's vlen-utf8 codec: count, then length and UTF-8 of each text."""
    parts = [struct.pack("<I", len(texts))]
    for text in texts:
        encoded = text.encode()
        parts += (struct.pack("<I", len(encoded)), encoded)
    return b"".join(parts)


def decode_texts(data: bytes) -> list[str]:
    """Inverse of `encode_texts`."""
    (count,), position, texts = struct.unpack_from("<I", data), 4, []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, position)
        texts.append(data[position + 4 : position + 4 + length].decode())
        position += 4 + length
    return texts
