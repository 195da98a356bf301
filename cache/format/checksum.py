"""CRC32C, the checksum of all values: it follows the content, as Zarr's codec writes it."""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np

from sur.cache.errors import CorruptStore

CRC_BYTES = 4


def crc32c(data: bytes | memoryview | np.ndarray, before: int = 0) -> int:
    """CRC32C of contiguous bytes; `before` is the checksum of the bytes that precede them."""
    view = np.frombuffer(data, dtype=np.uint8) if isinstance(data, memoryview) else data
    return google_crc32c.extend(before, view)  # pyright: ignore[reportArgumentType]


def with_crc(data: bytes) -> bytes:
    """`data` followed by its CRC32C, as Zarr's crc32c codec writes it."""
    return data + struct.pack("<I", crc32c(data))


def without_crc(data: bytes, where: str) -> bytes:
    """The content of bytes that `with_crc` made; `where` is for the message.

    Raises:
        CorruptStore: the checksum does not match.
    """
    content = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or struct.pack("<I", crc32c(content)) != data[-CRC_BYTES:]:
        raise CorruptStore(f"{where}: checksum (CRC32C) does not match its {len(data):,} bytes.")
    return content


def chunk_fault(data: bytes, crc: np.uint32) -> bool:
    """Whether a chunk (its bytes and their CRC32C) differs from the chunk with the checksum `crc`."""
    return data[-CRC_BYTES:] != crc.astype("<u4").tobytes() or crc32c(data[:-CRC_BYTES]) != crc
