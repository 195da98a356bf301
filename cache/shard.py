"""The bytes of one file: a shard of fixed-size checked chunks, or a single checked chunk.

Uncompressed and with CRC32C as the only codec, chunk i of a shard lies at i * (chunk bytes + 4) and the
index at the end follows from the shape alone. So rows are read by offset, and writing is one copy: both
many times faster than, and byte for byte the same as, zarr-python's codec pipeline.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from cache.dtypes import stored_dtype
from cache.errors import CorruptStore
from cache.records import ArraySpec

CRC_BYTES = 4
OWN_CHUNK_BYTES = 512  # rows at least this large get a chunk, and so a checksum, of their own


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
        """Bytes of one chunk without its checksum."""
        return self.rows_per_chunk * self.spec.nbytes

    @cached_property
    def shard_bytes(self) -> int:
        """Bytes of a whole shard file."""
        return self.chunks * (self.chunk_bytes + CRC_BYTES) + len(self.index)

    @cached_property
    def index(self) -> bytes:
        """The shard index (offset, length as uint64 a chunk) and its CRC32C, the same in every shard."""
        stride = self.chunk_bytes + CRC_BYTES
        entries = np.empty((self.chunks, 2), dtype="<u8")
        entries[:, 0] = np.arange(self.chunks) * stride
        entries[:, 1] = stride
        return with_crc(entries.tobytes())

    def encode(self, values: np.ndarray) -> tuple[memoryview, np.ndarray]:
        """Bytes of a shard, and each chunk's CRC32C (uint32), of (rows, *shape) values; the rest is zero."""
        stride = self.chunk_bytes + CRC_BYTES
        data = np.zeros(self.shard_bytes, dtype=np.uint8)
        chunks = data[: self.chunks * stride].reshape(self.chunks, stride)
        rows = np.ascontiguousarray(values).view(np.uint8) if values.ndim else values
        rows = rows.reshape(len(values), self.spec.nbytes)
        if self.rows_per_chunk == 1:
            chunks[: len(values), : self.chunk_bytes] = rows
        else:
            chunks[0, : rows.size] = rows.reshape(-1)
        crcs = np.array([crc32c(chunk) for chunk in chunks[:, : self.chunk_bytes]], dtype="<u4")
        chunks[:, self.chunk_bytes :] = crcs.view(np.uint8).reshape(self.chunks, CRC_BYTES)
        data[-len(self.index) :] = np.frombuffer(self.index, dtype=np.uint8)
        return data.data, crcs

    def damaged(self, data: bytes, crcs: np.ndarray) -> list[int]:
        """Chunks of a shard's bytes that do not have the checksums `crcs`, stored and recomputed."""
        stride = self.chunk_bytes + CRC_BYTES
        chunks = np.frombuffer(data, np.uint8, self.chunks * stride).reshape(self.chunks, stride)
        stored = chunks[:, self.chunk_bytes :].copy().view("<u4")[:, 0]
        return [
            index
            for index in range(self.chunks)
            if stored[index] != crcs[index] or crc32c(chunks[index, : self.chunk_bytes]) != crcs[index]
        ]


def crc32c(data: bytes | np.ndarray) -> int:
    """CRC32C of contiguous bytes."""
    return google_crc32c.value(data)  # pyright: ignore[reportArgumentType]


def with_crc(data: bytes) -> bytes:
    """`data` followed by its CRC32C, as Zarr's crc32c codec writes it."""
    return data + struct.pack("<I", crc32c(data))


def without_crc(data: bytes, path: Path) -> bytes:
    """Inverse of `with_crc`; `path` is for the message.

    Raises:
        CorruptStore: the checksum does not match.
    """
    content = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or struct.pack("<I", crc32c(content)) != data[-CRC_BYTES:]:
        raise CorruptStore(f"{path}: checksum (CRC32C) does not match its {len(data):,} bytes.")
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
