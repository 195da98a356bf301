"""Element types by name: how they are stored, checked and converted.

zarr-python has no bfloat16, so bit patterns of bfloat16 are stored as uint16. The attribute `bits_of: bfloat16` of the
array tells this to any reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np

from sur.cache.errors import BadValues

if TYPE_CHECKING:
    import torch

BFLOAT16 = "bfloat16"
_PLAIN = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)
DTYPES = (*_PLAIN, BFLOAT16)
MANTISSA_BITS = {"float16": 10, "float32": 23, "float64": 52, BFLOAT16: 7}


def stored_dtype(name: str) -> np.dtype[Any]:
    """Little-endian numpy type in which elements of type `name` lie on disk.

    Raises:
        BadValues: `name` is not one of `DTYPES`.
    """
    if name not in DTYPES:
        raise BadValues(f"Unknown dtype {name!r}. Use one of: {', '.join(DTYPES)}.")
    return np.dtype("uint16" if name == BFLOAT16 else name).newbyteorder("<")


def zarr_name(name: str) -> str:
    """Zarr v3 `data_type` for elements of type `name`."""
    return "uint16" if name == BFLOAT16 else name


def zarr_fill(name: str) -> Any:
    """Zarr v3 `fill_value` (zero) for elements of type `name`, as JSON."""
    if name == "bool":
        return False
    return 0.0 if name.startswith("float") else 0


def as_stored(values: np.ndarray, name: str, what: str) -> np.ndarray:
    """`values` as stored elements of type `name`, a view where possible; `what` names the array in errors.

    bfloat16 comes as uint16 bit patterns, or as any numpy extension type called bfloat16.

    Raises:
        BadValues: another element type.
    """
    dtype = stored_dtype(name)
    if name == BFLOAT16 and values.dtype.name == BFLOAT16:
        values = values.view(np.uint16)
    if values.dtype != dtype:
        hint = " (its bit patterns; see cache.float32_to_bfloat16)" if name == BFLOAT16 else ""
        raise BadValues(f"{what}: expected dtype {dtype}{hint}, got {values.dtype}.")
    return values.astype(dtype, copy=False)


def finite_mask(values: np.ndarray, name: str) -> np.ndarray:
    """Which of the stored elements of type `name` are neither NaN nor infinite: bool, in their shape."""
    if name == BFLOAT16:
        return (values & 0x7F80) != 0x7F80
    if np.issubdtype(values.dtype, np.floating):
        return np.isfinite(values)
    return np.ones(values.shape, dtype=bool)


def all_finite(values: np.ndarray, name: str) -> bool:
    """Whether all elements are finite. It compares the largest bit pattern of either sign, so it makes no copy."""
    bits = {"float16": 0x7C00, BFLOAT16: 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}.get(name)
    if bits is None or values.size == 0:
        return True
    size = values.dtype.itemsize
    positive, negative = values.view(f"<i{size}").max(), values.view(f"<u{size}").max()
    return int(positive) < bits and int(negative) < bits + (1 << (8 * size - 1))


def rounded(values: np.ndarray, name: str, keep_bits: int) -> np.ndarray:
    """Stored float elements of type `name`, rounded to `keep_bits` bits of the mantissa.

    The relative error is at most 2^-(keep_bits + 1) for numbers that are not subnormal.
    """
    codec = numcodecs.BitRound(keepbits=keep_bits)
    if name == BFLOAT16:
        wide = codec.decode(codec.encode(bfloat16_to_float32(values)))
        return float32_to_bfloat16(np.asarray(wide).reshape(values.shape))
    return np.asarray(codec.decode(codec.encode(values.copy()))).reshape(values.shape)


def float32_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16 bit patterns (uint16), to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    quiet_nan = ((bits >> 16) | 0x40).astype(np.uint16)
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, quiet_nan, rounded).reshape(np.shape(values))


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Widen bfloat16 bit patterns (uint16) to float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_torch(values: np.ndarray, name: str) -> torch.Tensor:
    """Tensor of type `name` that shares the memory of stored elements `values`."""
    import torch

    if name == BFLOAT16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def to_float32(stored: np.ndarray, name: str) -> np.ndarray:
    """Stored elements of type `name` as float32, a new array."""
    return bfloat16_to_float32(stored) if name == BFLOAT16 else stored.astype(np.float32)
