"""The values of one partition: each distinct item encoded once, duplicates copied, faults named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sur.cache import FeatureSpec, RowRecord, Store, row_id
from sur.cache.format.dtypes import stored_dtype
from sur.data import RowSource
from sur.features.encoders import Encoder
from sur.support.images import ImageError, decode

IMAGES_PER_CHUNK = 32  # decoded pictures in memory at a time; a fixed number, so batches never depend on a restart

ITEM_NAMES = {"simple": "simple prompt", "complex": "complex prompt", "image": "image"}
NO_ITEM = "row has no "
UNREAD = "picture '"  # begins the reason of a row whose picture was not read, and may be read another time
CHANGED = UNREAD + "{}' is not the one that the row was added with: edited since, or of another data.path"
OUTSIDE = "outside its data set: "  # begins the same reason of a row that was not in the data set at the time


@dataclass
class EncodedRows:
    """What `encode_rows` makes of a partition's rows; rows are named by their place in the partition.

    values: feature -> array -> (rows, *shape). missing: feature -> row -> the reason why the row has no value.
    unreadable: row -> the reason why its picture was not read; `record_unreadable` puts them into `missing`.
    copies: row -> slot of the earlier row that has its value; `copy_values` fills them in.
    stats: counts, summed over the encoder's calls.
    """

    values: dict[str, dict[str, np.ndarray]]
    missing: dict[str, dict[int, str]]
    unreadable: dict[int, str] = field(default_factory=dict)
    copies: dict[int, int] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)

    def mark(self, rows: Sequence[int], reason: str) -> None:
        """Record for all features why these rows have no value."""
        for missing in self.missing.values():
            missing.update(dict.fromkeys(rows, reason))

    def record_unreadable(self, outside: Collection[int]) -> None:
        """Record the reasons of unread pictures; those of the rows in `outside` say that their data set lacks them."""
        for missing in self.missing.values():
            for row, reason in self.unreadable.items():
                missing[row] = OUTSIDE + reason if row in outside else reason


def may_pass(reason: str, image_column: str) -> bool:
    """Whether a row that has no value for this reason may get one later: its picture was not read.

    What an encoder says of a row, and that a row has no picture, are final. Stores of older versions have reasons that
    begin with the column of the image.
    """
    return reason.startswith((UNREAD, OUTSIDE, "row: ", f"{image_column}: "))


class Duplicates:
    """The first row of a store that holds each prompt or picture, as the store was when this was made."""

    def __init__(self, store: Store, consumes: str) -> None:
        self.store, self.consumes, self.n_rows = store, consumes, store.n_rows
        self._first: dict[str, RowRecord] = {}
        for partition in range(store.n_partitions):
            for row in store.rows(partition):
                value = getattr(row, consumes)
                if value:
                    self._first.setdefault(value, row)

    def cover(self, store: Store, consumes: str) -> bool:
        """Whether these are the duplicates of this store as it is now, and of what an encoder consumes."""
        return self.store is store and self.consumes == consumes and self.n_rows == store.n_rows

    def owner(self, row: RowRecord) -> RowRecord | None:
        """The row of an earlier partition whose value is this row's too, or None."""
        first = self._first.get(getattr(row, self.consumes))
        if first is None or self._partition(first) == self._partition(row):
            return None
        return first

    def owner_partitions(self, rows: Sequence[RowRecord]) -> list[int]:
        """Earlier partitions that must be done before these rows can be computed, ascending."""
        owners = filter(None, map(self.owner, rows))
        return sorted({self._partition(owner) for owner in owners})

    def _partition(self, row: RowRecord) -> int:
        return row.slot // self.store.rows_per_partition


class Items:
    """Turns rows into what an encoder consumes: prompts as they are, pictures read, checked and decoded.

    places: where pictures are now, by slot, for those that are not where their row was added.
    """

    def __init__(
        self, consumes: str, source: RowSource | None, max_image_pixels: int, places: Mapping[int, str]
    ) -> None:
        self.consumes = consumes
        self.source = source
        self.max_image_pixels = max_image_pixels
        self.places = places

    def chunks(
        self, rows: Sequence[RowRecord], groups: Mapping[str, Sequence[int]]
    ) -> Iterator[tuple[list[str], list[Any], dict[str, str], dict[int, str]]]:
        """Yield (keys, items, bad, unread): items to encode together, and the reasons why others have none.

        groups: prompt or stored picture reference -> indices of the rows that hold it. bad: reference -> why its
        picture is of no use to any row. unread: row -> why its picture could not be read.
        """
        keys = list(groups)
        if self.consumes != "image":
            yield keys, keys, {}, {}
            return
        for start in range(0, len(keys), IMAGES_PER_CHUNK):
            good, images, bad, unread = [], [], {}, {}
            for key in keys[start : start + IMAGES_PER_CHUNK]:
                content = self._content_for([rows[index] for index in groups[key]], groups[key], unread)
                if content is not None:
                    try:
                        images.append(decode(content, self.max_image_pixels))
                        good.append(key)
                    except ImageError as error:
                        bad[key] = str(error)
            yield good, images, bad, unread

    def same(self, row: RowRecord, owner: RowRecord) -> bool:
        """Whether two rows of the same prompt or reference hold the same item: pictures may change."""
        if self.consumes != "image":
            return True
        try:
            content = self.content(row)
        except ValueError:
            return False
        return _is_picture_of(row, content) and _is_picture_of(owner, content)

    def content(self, row: RowRecord) -> bytes:
        """Bytes of a row's picture, from where it is now. Raises: ValueError when it is gone or may not be read."""
        place = self.places.get(row.slot, row.image)
        if self.source is None:
            raise ValueError(f"{UNREAD}{place}' is needed, but no row source is open")
        try:
            return self.source.image_bytes(place)
        except ValueError as error:
            raise ValueError(f"{UNREAD}{place}' was not read: {error}") from error

    def _content_for(self, rows: Sequence[RowRecord], indices: Sequence[int], unread: dict[int, str]) -> bytes | None:
        """Bytes of the picture that these rows share; the reasons of rows that it is not the picture of go to `unread`.

        The rows were added with one reference, hence with one picture, which may lie at several places by now.
        """
        found: bytes | None = None
        for row, index in zip(rows, indices, strict=True):
            if found is not None and _is_picture_of(row, found):
                continue
            try:
                content = self.content(row)
            except ValueError as error:
                unread[index] = str(error)
                continue
            if not _is_picture_of(row, content):
                unread[index] = CHANGED.format(self.places.get(row.slot, row.image))
            elif found is None:
                found = content
        return found


def encode_rows(
    encoder: Encoder,
    specs: Sequence[FeatureSpec],
    rows: Sequence[RowRecord],
    items: Items,
    duplicates: Duplicates,
    foreign: Collection[int] = (),
    own: Collection[int] = (),
) -> EncodedRows:
    """The values of one partition's rows in the given features of the encoder, and the rows that have none.

    An unreadable picture of a row in `foreign`, by place in the partition, ends the encoding: the partition cannot be
    completed, and only `unreadable` is of use then. Rows in `own` are encoded although an earlier row holds the same
    item.

    The items that share a batch depend on the stored rows alone, so a repeated run gives the same bits.
    """
    encoded = EncodedRows(
        values={
            spec.name: {
                key: np.zeros((len(rows), *array.shape), stored_dtype(array.dtype))
                for key, array in spec.arrays.items()
            }
            for spec in specs
        },
        missing={spec.name: {} for spec in specs},
    )
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        key = getattr(row, encoder.consumes)
        if not key:
            encoded.mark([index], NO_ITEM + ITEM_NAMES[encoder.consumes])
        elif index not in own and (owner := duplicates.owner(row)) and items.same(row, owner):
            encoded.copies[index] = owner.slot
        else:
            groups.setdefault(key, []).append(index)
    for keys, chunk, bad, unread in items.chunks(rows, groups):
        encoded.unreadable.update(unread)
        if any(index in foreign for index in unread):
            return encoded
        for key, reason in bad.items():
            encoded.mark([index for index in groups[key] if index not in unread], reason)
        if chunk:
            _encode_chunk(encoder, chunk, [groups[key] for key in keys], encoded)
    encoded.stats["encoded"] = len(groups)
    encoded.stats["copied"] = len(encoded.copies)
    return encoded


def _encode_chunk(
    encoder: Encoder, chunk: Sequence[Any], members: Sequence[Sequence[int]], encoded: EncodedRows
) -> None:
    """Encode distinct items and spread the values of each over the rows that hold it."""
    outcome = encoder.encode(chunk, list(encoded.values))
    for name, count in outcome.stats.items():
        encoded.stats[name] = encoded.stats.get(name, 0) + count
    for item, reason in outcome.bad.items():
        encoded.mark(members[item], reason)
    good = [item for item in range(len(chunk)) if item not in outcome.bad]
    pairs = [(row, item) for item in good for row in members[item] if row not in encoded.unreadable]
    for name, arrays in encoded.values.items():
        for key, values in outcome.values[name].items():
            for row, item in pairs:
                arrays[key][row] = values[item]


def copy_values(store: Store, encoded: EncodedRows) -> dict[int, str]:
    """Fill in the values of `encoded.copies` from the store, or the reasons why the earlier rows have none.

    Returns: row -> such a reason.
    """
    rows, slots = list(encoded.copies), np.array(list(encoded.copies.values()), np.int64)
    partitions = {slot // store.rows_per_partition for slot in encoded.copies.values()}
    without: dict[int, str] = {}
    for name, values in encoded.values.items():
        receipts = [receipt for p in partitions if (receipt := store.receipt(name, p)) is not None]
        reasons = {
            receipt.partition * store.rows_per_partition + place: reason
            for receipt in receipts
            for place, reason in receipt.missing.items()
        }
        stored = store.read(name, slots)
        for key, array in values.items():
            array[rows] = stored[key]
        lost = {row: reasons[slot] for row, slot in encoded.copies.items() if slot in reasons}
        encoded.missing[name].update(lost)
        without |= lost
    return without


def _is_picture_of(row: RowRecord, content: bytes) -> bool:
    """Whether these are the picture's bytes with which the row was added."""
    return row_id(row.simple, row.complex, content) == row.id
