"""A feature's values in float32, streamed: one partition at a time, in blocks of rows that fit a small memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sur.cache import FeatureSpec, Receipt, Store, to_float32
from sur.support.errors import NotInStore

BLOCK_VALUE_BYTES = 32 * 2**20  # of float32 values in memory at once, besides the partition as it is stored
FLOATS = ("float16", "float32", "float64", "bfloat16")


@dataclass(frozen=True)
class RowBlock:
    """Some rows of one partition that have a value.

    slots: int64 (rows,). values: float32 (rows, *shape) of the feature's main array. lengths: int64 (rows,), the number
    of the prompt's own tokens. counted: bool (rows, tokens), the positions of these tokens. Both are None where rows
    have no tokens.
    """

    slots: np.ndarray
    values: np.ndarray
    lengths: np.ndarray | None
    counted: np.ndarray | None


def main_array(spec: FeatureSpec) -> str:
    """Name of a feature's main array: `states`, the `mean` of latents, else its first array of floats.

    Raises: NotInStore when the feature has no floats.
    """
    floats = [name for name, array in sorted(spec.arrays.items()) if array.dtype in FLOATS]
    for name in ("states", "mean", *floats):
        if name in floats:
            return name
    raise NotInStore(f"{spec.name} holds no floats ({', '.join(spec.arrays)}), so there are no statistics of it")


def is_latents(spec: FeatureSpec) -> bool:
    """Whether the rows are (views, channels, height, width) latents."""
    return "logvar" in spec.arrays and len(spec.arrays[main_array(spec)].shape) == 4


def token_counts(spec: FeatureSpec, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`lengths` and `counted` of some rows' stored arrays, as in `RowBlock`.

    The prompt's own tokens are those of the mask; without a mask, the first `length` (in Stable Diffusion 3 those of
    CLIP, which come first).
    """
    shape = spec.arrays[main_array(spec)].shape
    if "mask" in arrays:
        mask = arrays["mask"].astype(bool)
        return mask.sum(axis=1, dtype=np.int64), mask if len(shape) == 2 else None
    if "length" not in arrays:
        return None, None
    lengths = arrays["length"].astype(np.int64)
    if len(shape) != 2:
        return lengths, None
    return lengths, np.arange(shape[0]) < lengths[:, None]


def valued_slots(store: Store, name: str) -> tuple[np.ndarray, list[Receipt]]:
    """Slots with a value of a feature, int64 ascending, and the receipts of the partitions that are done."""
    receipts = [receipt for receipt in store.receipts(name) if receipt is not None]
    size = store.rows_per_partition
    parts = [_with_value(receipt, size) for receipt in receipts]
    return np.concatenate([np.zeros(0, np.int64), *parts]), receipts


def partition_blocks(store: Store, name: str, receipt: Receipt) -> Iterator[RowBlock]:
    """The rows with a value of one finished partition, in order; every chunk is checked as it is read."""
    spec = store.spec(name)
    main = main_array(spec)
    slots = _with_value(receipt, store.rows_per_partition)
    places = slots - receipt.partition * store.rows_per_partition
    if not len(slots):
        return
    stored = store.read_partition(name, receipt.partition, {main, "length", "mask"})
    size = int(np.prod(spec.arrays[main].shape, dtype=np.int64)) * 4
    step = max(1, BLOCK_VALUE_BYTES // size)
    for start in range(0, len(slots), step):
        rows = places[start : start + step]
        arrays = {array: values[rows] for array, values in stored.items()}
        lengths, counted = token_counts(spec, arrays)
        values = to_float32(arrays[main], spec.arrays[main].dtype)
        yield RowBlock(slots[start : start + step], values, lengths, counted)


def _with_value(receipt: Receipt, rows_per_partition: int) -> np.ndarray:
    """Slots of a partition that have a value."""
    has_value = np.ones(receipt.rows, dtype=bool)
    has_value[list(receipt.missing)] = False
    return np.flatnonzero(has_value) + receipt.partition * rows_per_partition
