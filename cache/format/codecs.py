"""How the chunks of an array are packed: codecs by name, as numcodecs runs them and as Zarr v3 names them.

Whatever the codec, each packed chunk carries its CRC32C. `raw` rows lie at fixed places and are read singly; packed
ones are best read shard by shard.
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
    """Zarr v3 `codecs` from elements to packed bytes, the checksum not included."""
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
    """Inverse of `pack`, into contiguous `target` (elements). Raises ValueError for other bytes."""
    try:
        found = np.frombuffer(_codec(name).decode(data), dtype=target.dtype)
    except Exception as error:  # each codec has errors of its own
        raise ValueError(f"codec {name}: {error}") from error
    if found.size != target.size:
        raise ValueError(f"codec {name}: expected {target.size:,} elements, got {found.size:,}")
    target.reshape(-1)[...] = found


@cache
def _codec(name: str) -> Any:
    if name == "zstd":
        return numcodecs.Zstd(level=_ZSTD_LEVEL)
    if name == "pcodec":
        from numcodecs.pcodec import PCodec

        return PCodec(level=_PCODEC_LEVEL)
    shuffle = numcodecs.Blosc.SHUFFLE if name == "blosc-shuffle" else numcodecs.Blosc.BITSHUFFLE
    return numcodecs.Blosc("zstd", _BLOSC_LEVEL, shuffle)
