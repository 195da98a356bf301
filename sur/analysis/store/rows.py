"""One row of a store: its prompts, and what each feature holds of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace

import numpy as np

from sur.analysis.store.blocks import FLOATS, Block, main_array, token_counts
from sur.analysis.store.vectors import block_vectors
from sur.cache import FeatureSpec, RowRecord, Store, to_float32
from sur.support.errors import NotInStore

SHOWN = 5  # ids that a message names
NOT_YET = "not extracted yet"
AN_ID = r"[0-9a-f]{4,32}"  # or what one begins with


@dataclass(frozen=True)
class RowFeature:
    """What one feature holds of a row.

    `missing` says why it holds nothing, "" where it does. `tokens`: the prompt's own, None where rows have no tokens;
    `token_norms`: Euclidean norm of each of their states. mean, deviation, largest (in magnitude): of all numbers that
    count. `norm`: of the row's one vector (see `sur.analysis.store.vectors`).
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
class RowDescription:
    """A row. `id` in hex. `split_share` in [0, 1): a training holds the row back when it is below its
    train.validation_fraction."""

    slot: int
    id: str
    simple: str
    complex: str
    image: str
    partition: int
    datasets: tuple[str, ...]
    split_share: float
    features: tuple[RowFeature, ...]

    def to_json(self) -> dict:
        """Plain JSON of it; null what a feature without a value for the row cannot say."""
        features = [
            asdict(each) | dict.fromkeys(("mean", "deviation", "largest", "norm") if each.missing else ())
            for each in self.features
        ]
        return asdict(self) | {"features": features}


def describe_row(store: Store, key: int | str) -> RowDescription:
    """A row by its slot (a number, or "#12"), its id, or the first four or more hex digits of it.

    Of digits alone up to seven are a slot, more are an id.

    Raises: NotInStore when there is no such row, or several.
    """
    slot = find_row(store, key)
    size = store.rows_per_partition
    row = store.rows(slot // size)[slot % size]
    sets = tuple(name for name in store.datasets() if store.members(name)[slot])
    features = tuple(_feature(store, spec, slot) for spec in store.features().values() if _has_floats(spec))
    share = int.from_bytes(row.id[:8], "big") / 2.0**64
    return RowDescription(
        slot, row.id.hex(), row.simple, row.complex, row.image, slot // size, sets, share, features
    )  # fmt: skip


def find_row(store: Store, key: int | str) -> int:
    """The slot that `key` names, as `describe_row` understands it."""
    text = str(key).strip().lower()
    if isinstance(key, int) or re.fullmatch(r"#\d+|\d{1,7}", text):
        slot = int(text.removeprefix("#"))
        filled = store.filled()
        if not 0 <= slot < len(filled) or not filled[slot]:
            raise NotInStore(f"slot {slot} holds no row; {store.path} has {store.n_rows} rows in {len(filled)} slots")
        return slot
    if not re.fullmatch(AN_ID, text):
        raise NotInStore(f"{key!r} is no row: give a slot (12), an id, or at least four hex digits an id begins with")
    ids, filled = store.row_ids(), np.flatnonzero(store.filled())
    found = filled[places_of_id(ids[filled], text)].tolist()
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotInStore(f"no row's id begins with {text} in {store.path} ({store.n_rows} rows)")
    names = ", ".join(ids[slot].tobytes().hex() for slot in found[:SHOWN])
    raise NotInStore(
        f"{len(found)} rows' ids begin with {text} ({names}{', …' * (len(found) > SHOWN)}); give more of it"
    )


def places_of_id(ids: np.ndarray, text: str) -> np.ndarray:
    """Places, int64 (n,), of the ids, uint8 (rows, 16), that begin with some hex digits (`AN_ID`)."""
    whole = np.frombuffer(bytes.fromhex(text[: len(text) // 2 * 2]), np.uint8)
    fits = (ids[:, : len(whole)] == whole).all(axis=1)
    if len(text) % 2:
        fits[fits] = ids[fits, len(whole)] >> 4 == int(text[-1], 16)
    return np.flatnonzero(fits)


def row_records(store: Store, slots: list[int]) -> list[RowRecord]:
    """Rows at some slots, in their order; each partition is read once."""
    size, read = store.rows_per_partition, {}
    for partition in sorted({slot // size for slot in slots}):
        read[partition] = store.rows(partition)
    return [read[slot // size][slot % size] for slot in slots]


def _has_floats(spec: FeatureSpec) -> bool:
    return any(array.dtype in FLOATS for array in spec.arrays.values())


def _feature(store: Store, spec: FeatureSpec, slot: int) -> RowFeature:
    array = main_array(spec)
    empty = RowFeature(spec.name, spec.kind, array, spec.arrays[array].shape)
    receipt = store.receipt(spec.name, slot // store.rows_per_partition)
    place = slot % store.rows_per_partition
    if receipt is None or place in receipt.missing:
        return replace(empty, missing=receipt.missing[place] if receipt else NOT_YET)
    stored = store.read(spec.name, np.array([slot]))
    lengths, counted = token_counts(spec, stored)
    block = Block(np.array([slot]), to_float32(stored[array], spec.arrays[array].dtype), lengths, counted)
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
