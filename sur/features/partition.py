"""The values of one partition: each distinct item encoded once, duplicates copied, faults named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from sur.cache import RowRecord, Store, row_id
from sur.data import RowSource
from sur.features.encoders import Encoder
from sur.support.images import decode

IMAGES_PER_CHUNK = 32  # decoded pictures held at once; a fixed number, so batches never depend on a restart

WORDS = {"simple": "simple prompt", "complex": "complex prompt", "image": "image"}
CHANGED = "picture '{}' is not the one that the row was added with: edited since, or of another data.path"


@dataclass
class EncodedRows:
    """Values (rows, *shape) of each feature, reasons for rows without a value, and summed counts."""

    values: dict[str, dict[str, np.ndarray]]
    missing: dict[str, dict[int, str]]
    stats: dict[str, int] = field(default_factory=dict)


class Duplicates:
    """Which slot of the store holds a prompt or picture first."""

    def __init__(self, store: Store, consumes: str) -> None:
        self.rows_per_partition = store.rows_per_partition
        self.consumes = consumes
        self._first = _first_rows(store, store.n_rows, consumes)

    def owner(self, row: RowRecord) -> RowRecord | None:
        """The row of an earlier partition whose value is this row's too, or None."""
        first = self._first.get(getattr(row, self.consumes))
        if first is None or first.slot // self.rows_per_partition == row.slot // self.rows_per_partition:
            return None
        return first

    def owner_partitions(self, rows: Sequence[RowRecord]) -> list[int]:
        """Earlier partitions that must be done before these rows can be computed, ascending."""
        owners = filter(None, map(self.owner, rows))
        return sorted({owner.slot // self.rows_per_partition for owner in owners})


@lru_cache(maxsize=2)
def _first_rows(store: Store, n_rows: int, consumes: str) -> dict[str, RowRecord]:
    """The first row of the store that holds each prompt or picture reference (n_rows renews the cache)."""
    first: dict[str, RowRecord] = {}
    for partition in range(store.n_partitions):
        for row in store.rows(partition):
            value = getattr(row, consumes)
            if value:
                first.setdefault(value, row)
    return first


def forget_duplicates() -> None:
    """Let go of the stores' rows."""
    _first_rows.cache_clear()


OUTSIDE = "outside its data set: "


class OfAnotherDataSet(Exception):
    """A picture that cannot be reached belongs to a row of another data set, which will encode it."""


class Items:
    """Turns rows into what an encoder consumes: prompts as they are, pictures read, checked and decoded."""

    def __init__(self, consumes: str, source: RowSource | None, max_image_pixels: int) -> None:
        self.consumes = consumes
        self.source = source
        self.max_image_pixels = max_image_pixels

    def chunks(
        self, rows: Sequence[RowRecord], groups: dict[str, list[int]]
    ) -> Iterator[tuple[list[str], list[Any], dict[int, str]]]:
        """Yield (keys, items, faults): items to encode together, and why rows cannot have theirs.

        groups: prompt or picture reference -> indices of the rows that hold it.
        """
        keys = list(groups)
        if self.consumes != "image":
            yield keys, keys, {}
            return
        for start in range(0, len(keys), IMAGES_PER_CHUNK):
            good, images, faults = [], [], {}
            for key in keys[start : start + IMAGES_PER_CHUNK]:
                try:
                    content = self.content(key)
                    changed = [index for index in groups[key] if not _holds(rows[index], content)]
                    faults.update(dict.fromkeys(changed, CHANGED.format(key)))
                    if len(changed) < len(groups[key]):
                        images.append(decode(content, self.max_image_pixels))
                        good.append(key)
                except ValueError as error:
                    faults.update(dict.fromkeys(groups[key], str(error)))
            yield good, images, faults

    def same(self, row: RowRecord, owner: RowRecord) -> bool:
        """Whether two rows of the same prompt or reference hold the same item: pictures may change."""
        if self.consumes != "image":
            return True
        try:
            content = self.content(row.image)
        except ValueError:
            return False
        return _holds(row, content) and _holds(owner, content)

    def content(self, reference: str) -> bytes:
        """Bytes of a picture. Raises: ValueError when it is gone or may not be read."""
        if self.source is None:
            raise ValueError(f"picture '{reference}' is needed, but no row source is open")
        return self.source.image_bytes(reference)


def _holds(row: RowRecord, content: bytes) -> bool:
    """Whether these are the picture's bytes with which the row was added."""
    return row_id(row.simple, row.complex, content) == row.id


def encode_rows(
    store: Store,
    encoder: Encoder,
    names: Sequence[str],
    rows: Sequence[RowRecord],
    items: Items,
    duplicates: Duplicates,
    owned: Callable[[RowRecord, str], str] = lambda _row, reason: reason,
    settle: Callable[[], None] = lambda: None,
) -> EncodedRows:
    """Encode one partition's rows into the named features.

    `owned` says of a row whose picture is at fault what is to be recorded, or raises OfAnotherDataSet. `settle` is
    called before values of other partitions are copied, to have them written.

    Which items share a batch depends on the stored rows alone, so a repeated run gives the same bits.
    """
    arrays = {name: store.features()[name].arrays for name in names}
    result = EncodedRows(
        values={
            name: {key: np.zeros((len(rows), *spec.shape), _numpy_dtype(spec.dtype)) for key, spec in specs.items()}
            for name, specs in arrays.items()
        },
        missing={name: {} for name in names},
    )
    groups: dict[str, list[int]] = {}
    copies: dict[int, int] = {}
    for index, row in enumerate(rows):
        key = getattr(row, encoder.consumes)
        if not key:
            _mark(result, [index], f"row has no {WORDS[encoder.consumes]}")
        elif (owner := duplicates.owner(row)) and items.same(row, owner):
            copies[index] = owner.slot
        else:
            groups.setdefault(key, []).append(index)
    _encode(encoder, names, rows, groups, items, owned, result)
    if copies:
        settle()
        _copy(store, result, copies)
    result.stats["encoded"] = len(groups)
    result.stats["copied"] = len(copies)
    return result


def _encode(
    encoder: Encoder,
    names: Sequence[str],
    rows: Sequence[RowRecord],
    groups: dict[str, list[int]],
    items: Items,
    owned: Callable[[RowRecord, str], str],
    result: EncodedRows,
) -> None:
    """Encode each distinct item once and spread its values over the rows that hold it."""
    for keys, chunk, faults in items.chunks(rows, groups):
        for index, reason in faults.items():
            _mark(result, [index], owned(rows[index], reason))
        if not chunk:
            continue
        encoded = encoder.encode(chunk, names)
        for name, count in encoded.stats.items():
            result.stats[name] = result.stats.get(name, 0) + count
        good = [item for item in range(len(keys)) if item not in encoded.bad]
        for item, reason in encoded.bad.items():
            _mark(result, groups[keys[item]], reason)
        pairs = [(index, item) for item in good for index in groups[keys[item]] if index not in faults]
        for name in names:
            for key, values in encoded.values[name].items():
                target = result.values[name][key]
                for index, item in pairs:
                    target[index] = values[item]


def _copy(store: Store, result: EncodedRows, copies: dict[int, int]) -> None:
    """Take the owners' values, or their reasons for having none."""
    targets, slots = list(copies), np.array(list(copies.values()), np.int64)
    partitions = {slot // store.rows_per_partition for slot in copies.values()}
    for name, values in result.values.items():
        receipts = [receipt for p in partitions if (receipt := store.receipt(name, p)) is not None]
        reasons = {
            receipt.partition * store.rows_per_partition + place: reason
            for receipt in receipts
            for place, reason in receipt.missing.items()
        }
        stored = store.read(name, slots)
        for key in values:
            values[key][targets] = stored[key]
        for index, slot in copies.items():
            if slot in reasons:
                result.missing[name][index] = reasons[slot]


def _mark(result: EncodedRows, indices: Sequence[int], reason: str) -> None:
    """Say for all features why these rows have no value."""
    for missing in result.missing.values():
        missing.update(dict.fromkeys(indices, reason))


def _numpy_dtype(dtype: str) -> np.dtype:
    """The numpy dtype in which the cache takes an array's values."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)
