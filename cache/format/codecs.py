"""Codecs that pack the chunks of an array, by name: run by numcodecs, declared as Zarr v3 declares them.

With every codec, each chunk carries its CRC32C. Rows of codec `raw` lie at fixed places and are read singly. Rows of
the other codecs are best read shard by shard.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

import numcodecs
import numpy as np

from sur.cache.errors import BadValues

Codec = Literal["raw", "zstd", "blosc-shuffle", "blosc-bitshuffle", "pcodec"]
CODECS: tuple[str, ...] = get_args(Codec)
RAW = "raw"
_ZSTD_LEVEL = 3
_BLOSC_LEVEL = 5
_PCODEC_LEVEL = 8
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}


def check_codec(name: str) -> None:
    """Raises BadValues when `name` is not one of `CODECS`."""
    if name not in CODECS:
        raise BadValues(f"Unknown codec {name!r}. Use one of: {', '.join(CODECS)}.")


def require_codec(name: str) -> None:
    """Raises BadValues when the package that a codec needs is not installed."""
    try:
        if name != RAW:
            _codec(name)
    except ImportError as error:
        raise BadValues(f"Codec {name} needs a package that is not installed ({error}); pip install {name}.") from error


def codec_metadata(name: str, dtype: np.dtype) -> list[dict[str, Any]]:
    """Zarr v3 `codecs` from elements to packed bytes, without the checksum."""
    if name == "pcodec":
        return [{"name": "numcodecs.pcodec", "configuration": {"level": _PCODEC_LEVEL}}]
    if name == "zstd":
        return [_BYTES, {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}]
    if name.startswith("blosc-"):
        configuration = {
            "typesize": dtype.itemsize,
            "cname": "zstd",
            "clevel": _BLOSC_LEVEL,
            "shuffle": name.removeprefix("blosc-"),
            "blocksize": 0,
        }
        return [_BYTES, {"name": "blosc", "configuration": configuration}]
    return [_BYTES]


def pack(name: str, elements: np.ndarray) -> bytes:
    """Packed bytes of contiguous elements."""
    return bytes(_codec(name).encode(elements))


def unpack(name: str, data: bytes | np.ndarray, target: np.ndarray) -> None:
    """Unpack the elements that `pack` packed, into contiguous `target`; no byte is unpacked beyond its end.

    Raises ValueError for other bytes, or for another number of elements.
    """
    out = target.reshape(-1)
    try:
        if name == "pcodec":
            from pcodec import standalone  # pyright: ignore[reportAttributeAccessIssue]

            progress = standalone.simple_decompress_into(bytes(data), out)
            size = progress.n_processed * out.itemsize if progress.finished else -1
        elif (size := _unpacked_bytes(name, bytes(data[:18]), len(data))) == out.nbytes:
            _codec(name).decode(data, out.view(np.uint8))
    except Exception as error:  # every codec raises its own errors
        raise ValueError(f"codec {name}: {error}") from error
    if size != out.nbytes:
        found = f"{size:,} bytes" if size >= 0 else "more"
        raise ValueError(f"codec {name}: expected {out.nbytes:,} bytes when unpacked, found {found}")


def _unpacked_bytes(name: str, header: bytes, length: int) -> int:
    """Bytes that the header of `length` bytes by zstd or blosc promises; the codec would allocate any number.

    RFC 8878, section 3.1.1, and README_CHUNK_FORMAT.rst of c-blosc.
    """
    if name != "zstd":
        if int.from_bytes(header[12:16], "little") != length:
            raise ValueError(f"the header is not of these {length:,} bytes")
        return int.from_bytes(header[4:8], "little")
    descriptor = header[4]
    single_segment, size_flag = descriptor >> 5 & 1, descriptor >> 6
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = header[start : start + (single_segment, 2, 4, 8)[size_flag]]
    return int.from_bytes(size, "little") + 256 * (size_flag == 1)


@cache
def _codec(name: str) -> Any:
    if name == "zstd":
        return numcodecs.Zstd(level=_ZSTD_LEVEL)
    if name == "pcodec":
        from numcodecs.pcodec import PCodec

        return PCodec(level=_PCODEC_LEVEL)
    shuffle = numcodecs.Blosc.SHUFFLE if name == "blosc-shuffle" else numcodecs.Blosc.BITSHUFFLE
    return numcodecs.Blosc("zstd", _BLOSC_LEVEL, shuffle)
