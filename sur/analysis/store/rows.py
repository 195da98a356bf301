"""One row of a store: its prompts, its values in each feature, and its nearest rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sur.analysis.store.blocks import FLOATS, RowBlock, main_array, token_counts
from sur.analysis.store.neighbours import Neighbours
from sur.analysis.store.vectors import block_vectors
from sur.cache import FeatureSpec, RowRecord, Store, to_float32
from sur.support.errors import NotInStore

NOT_EXTRACTED = "not extracted yet"
ID_PATTERN = r"[0-9a-f]{4,32}"  # an id, or the beginning of one
_MOST_IDS = 5  # ids that a message names


@dataclass(frozen=True)
class RowFeature:
    """The values of a row in one feature, in a few numbers.

    missing: why the row has no value, "" where it has one. tokens: count of the prompt's own tokens, None where rows
    have no tokens; token_norms: Euclidean norm of each of their states. mean, deviation, largest (in magnitude): of
    all numbers but padding. norm: of the row's one vector (see `sur.analysis.store.vectors`).
    """

    name: str
    kind: str
    array: str
    shape: tuple[int, ...]
    missing: str = ""
    tokens: int | None = None
    token_norms: tuple[float, ...] = ()
    mean: float = 0.0
    deviation: float = 0.0
    largest: float = 0.0
    norm: float = 0.0


@dataclass(frozen=True)
class NearRow:
    """A row near another one, and the cosine of their standardised vectors."""

    slot: int
    similarity: float
    simple: str


@dataclass(frozen=True)
class RowReport:
    """A row of a store.

    id: in hex. split_share: in [0, 1); the row is in the validation split of a training whose
    train.validation_fraction is above it. neighbours: by feature, the nearest rows first.
    """

    slot: int
    id: str
    simple: str
    complex: str
    image: str
    partition: int
    datasets: tuple[str, ...]
    split_share: float
    features: tuple[RowFeature, ...]
    neighbours: Mapping[str, tuple[NearRow, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON; null for the numbers of a feature without a value."""
        features = [
            asdict(feature) | dict.fromkeys(("mean", "deviation", "largest", "norm") if feature.missing else ())
            for feature in self.features
        ]
        neighbours = {
            name: [{"slot": row.slot, "similarity": row.similarity} for row in rows]
            for name, rows in self.neighbours.items()
        }
        return asdict(replace(self, neighbours={})) | {"features": features, "neighbours": neighbours}


def describe_row(store: Store, key: int | str, neighbours: int = 0) -> RowReport:
    """The report of a row, named by its slot (a number, or "#12"), its id, or the first hex digits of it (4 or more).

    Digits alone are a slot if they are seven or fewer, else an id. neighbours: nearest rows by each feature; with any,
    every value of the features is read, unless their vectors are kept already.

    Raises: NotInStore when there is no such row, or several.
    """
    slot = find_row(store, key)
    size = store.rows_per_partition
    row = store.rows(slot // size)[slot % size]
    sets = tuple(name for name in store.datasets() if store.members(name)[slot])
    image = next((now[slot] for name in sets if slot in (now := store.places(name))), row.image)
    features = tuple(_feature(store, spec, slot) for spec in store.features().values() if _has_floats(spec))
    share = int.from_bytes(row.id[:8], "big") / 2.0**64
    valued = [feature.name for feature in features if not feature.missing] if neighbours else []
    return RowReport(
        slot, row.id.hex(), row.simple, row.complex, image, slot // size, sets, share, features,
        {name: _near_rows(store, name, slot, neighbours) for name in valued},
    )  # fmt: skip


def find_row(store: Store, key: int | str) -> int:
    """The slot of the row that `key` names, as in `describe_row`."""
    text = str(key).strip().lower()
    if isinstance(key, int) or re.fullmatch(r"#\d+|\d{1,7}", text):
        slot = int(text.removeprefix("#"))
        filled = store.filled()
        if not 0 <= slot < len(filled) or not filled[slot]:
            raise NotInStore(f"slot {slot} holds no row; {store.path} has {store.n_rows} rows in {len(filled)} slots")
        return slot
    if not re.fullmatch(ID_PATTERN, text):
        raise NotInStore(f"{key!r} is no row: give a slot (12), an id, or at least four hex digits an id begins with")
    ids, filled = store.row_ids(), np.flatnonzero(store.filled())
    slots = filled[places_of_id(ids[filled], text)].tolist()
    if len(slots) == 1:
        return slots[0]
    if not slots:
        raise NotInStore(f"no row's id begins with {text} in {store.path} ({store.n_rows} rows)")
    names = ", ".join(ids[slot].tobytes().hex() for slot in slots[:_MOST_IDS])
    raise NotInStore(
        f"{len(slots)} rows' ids begin with {text} ({names}{', …' * (len(slots) > _MOST_IDS)}); give more of it"
    )


def places_of_id(ids: np.ndarray, text: str) -> np.ndarray:
    """Places, int64 (n,), of the ids, uint8 (rows, 16), that begin with some hex digits (`ID_PATTERN`)."""
    whole = np.frombuffer(bytes.fromhex(text[: len(text) // 2 * 2]), np.uint8)
    fits = (ids[:, : len(whole)] == whole).all(axis=1)
    if len(text) % 2:
        fits[fits] = ids[fits, len(whole)] >> 4 == int(text[-1], 16)
    return np.flatnonzero(fits)


def row_records(store: Store, slots: list[int]) -> list[RowRecord]:
    """Rows in some slots, in the order of the slots; each partition is read once."""
    size, read = store.rows_per_partition, {}
    for partition in sorted({slot // size for slot in slots}):
        read[partition] = store.rows(partition)
    return [read[slot // size][slot % size] for slot in slots]


def _has_floats(spec: FeatureSpec) -> bool:
    return any(array.dtype in FLOATS for array in spec.arrays.values())


def _near_rows(store: Store, feature: str, slot: int, count: int) -> tuple[NearRow, ...]:
    near = Neighbours(store, feature, standardised=True).nearest(slot, count)
    rows = row_records(store, [neighbour.slot for neighbour in near])
    return tuple(NearRow(n.slot, n.similarity, row.simple) for n, row in zip(near, rows, strict=True))


def _feature(store: Store, spec: FeatureSpec, slot: int) -> RowFeature:
    array = main_array(spec)
    empty = RowFeature(spec.name, spec.kind, array, spec.arrays[array].shape)
    receipt = store.receipt(spec.name, slot // store.rows_per_partition)
    place = slot % store.rows_per_partition
    if receipt is None or place in receipt.missing:
        return replace(empty, missing=receipt.missing[place] if receipt else NOT_EXTRACTED)
    stored = store.read(spec.name, np.array([slot]))
    lengths, counted = token_counts(spec, stored)
    block = RowBlock(np.array([slot]), to_float32(stored[array], spec.arrays[array].dtype), lengths, counted)
    values = block.values[0] if counted is None else block.values[0][counted[0]]
    if values.size == 0:
        return replace(empty, tokens=0)
    return replace(
        empty,
        tokens=None if lengths is None else int(lengths[0]),
        token_norms=() if counted is None else tuple(np.linalg.norm(values, axis=1).tolist()),
        mean=float(values.mean(dtype=np.float64)),
        deviation=float(values.std(dtype=np.float64)),
        largest=float(np.abs(values).max()),
        norm=float(np.linalg.norm(block_vectors(spec, block)[0])),
    )
