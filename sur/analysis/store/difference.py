"""Differences between two features or two stores, and their sizes; rows are joined by their ids."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sur.analysis.store.blocks import valued_slots
from sur.cache import FeatureSpec, Receipt, Store, to_float32

_MOST_ROWS = 5  # worst rows, and ids of rows that only one side has
_ROWS_AT_ONCE = 64  # rows that are compared at once


@dataclass(frozen=True)
class OnlyIn:
    """Rows that only one side has: their number, and the ids (hex) of the first."""

    rows: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class ArrayDifference:
    """One array of both features over the rows that both have.

    relative_error: |a - b| / |b|, Euclidean, over all rows. largest: largest |a - b| of an element. mean_cosine and
    least_cosine: of rows. equal_rows: rows that are equal in every element. If the arrays were not compared, `note`
    says why, the numbers are zero, and null in JSON.
    """

    name: str
    note: str = ""
    rows: int = 0
    equal_rows: int = 0
    relative_error: float = 0.0
    largest: float = 0.0
    mean_cosine: float = 0.0
    least_cosine: float = 0.0


@dataclass(frozen=True)
class RowDifference:
    """One of the rows with the largest relative errors in the features' first compared array."""

    id: str
    slot_a: int
    slot_b: int
    relative_error: float
    cosine: float


@dataclass(frozen=True)
class FeatureDifference:
    """The difference of two features.

    identity: (field, value in a, value in b) for each field that differs. by_checksum: the receipts show that the
    stored bytes are the same, so they were not read.
    """

    name_a: str
    name_b: str
    identity: tuple[tuple[str, Any, Any], ...]
    only_a: OnlyIn
    only_b: OnlyIn
    rows: int
    by_checksum: bool
    arrays: tuple[ArrayDifference, ...]
    worst: tuple[RowDifference, ...]

    @property
    def same(self) -> bool:
        """Whether identity, rows and every number are the same."""
        return not (self.identity or self.only_a.rows or self.only_b.rows) and all(
            not array.note and array.equal_rows == array.rows for array in self.arrays
        )

    def to_json(self) -> dict:
        """The difference as plain JSON; null for the measures of an array without a row to compare."""
        unknown = ("relative_error", "largest", "mean_cosine", "least_cosine")
        arrays = [asdict(array) | dict.fromkeys(() if array.rows else unknown) for array in self.arrays]
        return asdict(self) | {"same": self.same, "arrays": arrays}


@dataclass(frozen=True)
class StoreDifference:
    """The difference of two stores: rows, features and assets that only one has, and each feature that both have."""

    only_a: OnlyIn
    only_b: OnlyIn
    rows: int
    features_only_a: tuple[str, ...]
    features_only_b: tuple[str, ...]
    features: tuple[FeatureDifference, ...]
    assets_only_a: tuple[str, ...] = ()
    assets_only_b: tuple[str, ...] = ()
    assets_differing: tuple[tuple[str, tuple[tuple[str, Any, Any], ...]], ...] = field(default=())

    @property
    def same(self) -> bool:
        """Whether both stores hold the same."""
        alone = (self.features_only_a, self.features_only_b, self.assets_only_a, self.assets_only_b)
        rows = self.only_a.rows or self.only_b.rows
        return not (rows or any(alone) or self.assets_differing) and all(f.same for f in self.features)

    def to_json(self) -> dict:
        """The difference as plain JSON."""
        return asdict(self) | {"same": self.same, "features": [feature.to_json() for feature in self.features]}


def compare_stores(a: Store, b: Store) -> StoreDifference:
    """The difference of two stores: rows by id, features and assets by name, values of the features in both.

    Raises: CorruptStore when a checksum does not match.
    """
    only_a, only_b, slots_a, _ = _join(a, np.flatnonzero(a.filled()), b, np.flatnonzero(b.filled()))
    names_a, names_b, assets_a, assets_b = a.features(), b.features(), a.assets(), b.assets()
    differing = []
    for name in sorted(assets_a.keys() & assets_b.keys()):
        fields = assets_a[name].differences(assets_b[name])
        if not fields:
            computed = [store.has_asset(specs[name]) for store, specs in ((a, assets_a), (b, assets_b))]
            if all(computed):
                values = (a.read_asset(name), b.read_asset(name))
                fields = [(k, "values", "other values") for k in values[0] if (values[0][k] != values[1][k]).any()]
            elif any(computed):
                fields = [("values", *("there" if done else "not computed yet" for done in computed))]
        if fields:
            differing.append((name, tuple(fields)))
    return StoreDifference(
        only_a,
        only_b,
        len(slots_a),
        tuple(sorted(names_a.keys() - names_b.keys())),
        tuple(sorted(names_b.keys() - names_a.keys())),
        tuple(compare_features(a, name, b, name) for name in sorted(names_a.keys() & names_b.keys())),
        tuple(sorted(assets_a.keys() - assets_b.keys())),
        tuple(sorted(assets_b.keys() - assets_a.keys())),
        tuple(differing),
    )


def compare_features(store_a: Store, name_a: str, store_b: Store, name_b: str) -> FeatureDifference:
    """The difference of two features, of one store or two, over the rows that have a value in both.

    Raises:
        UnknownFeature: a store has no such feature; the message names those that exist.
        CorruptStore: a checksum does not match.
    """
    spec_a, spec_b = store_a.spec(name_a), store_b.spec(name_b)
    valued_a, receipts_a = valued_slots(store_a, name_a)
    valued_b, receipts_b = valued_slots(store_b, name_b)
    only_a, only_b, slots_a, slots_b = _join(store_a, valued_a, store_b, valued_b)
    same_bytes = spec_a.arrays == spec_b.arrays and _agree(receipts_a, receipts_b)
    shared = [name for name in spec_a.arrays if name in spec_b.arrays]
    compared = {
        name: _ArrayComparison(name) for name in shared if spec_a.arrays[name].shape == spec_b.arrays[name].shape
    }
    worst: list[RowDifference] = []
    ids = store_a.row_ids()
    if not same_bytes:
        for start in range(0, len(slots_a), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows = (slots_a[part], slots_b[part])
            read_a, read_b = store_a.read(name_a, rows[0]), store_b.read(name_b, rows[1])
            errors = {
                name: comparison.add(
                    _as_numbers(read_a[name], spec_a.arrays[name].dtype),
                    _as_numbers(read_b[name], spec_b.arrays[name].dtype),
                )
                for name, comparison in compared.items()
            }
            if first := _first_compared(spec_a, compared):
                worst = _worst(worst, ids, rows, *errors[first])
    arrays = [comparison.result() for comparison in compared.values()]
    if same_bytes:
        arrays = [
            ArrayDifference(n, rows=len(slots_a), equal_rows=len(slots_a), mean_cosine=1, least_cosine=1)
            for n in shared
        ]
    arrays += [
        ArrayDifference(name, _why_not(spec_a, spec_b, name)) for name in sorted({*spec_a.arrays, *spec_b.arrays})
        if name not in compared
    ]  # fmt: skip
    return FeatureDifference(
        name_a, name_b, tuple(spec_a.differences(spec_b)), only_a, only_b, len(slots_a), same_bytes, tuple(arrays),
        tuple(worst),
    )  # fmt: skip


class _ArrayComparison:
    """The comparison of one array of both features, block by block; sums in float64."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = self.equal = 0
        self.apart = self.size = self.largest = self.cosines = 0.0
        self.least = 1.0

    def add(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compare rows, (n, *shape) of any dtype; returns their relative errors and cosines, float64 (n,)."""
        a, b = (values.reshape(len(values), -1) for values in (a, b))
        self.equal += int((a == b).all(axis=1).sum())  # before the cast: float64 cannot represent every int64
        a, b = (values.astype(np.float64) for values in (a, b))
        apart, size = ((a - b) ** 2).sum(axis=1), (b**2).sum(axis=1)
        norms = np.sqrt((a**2).sum(axis=1) * size)
        cosines = np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), (apart == 0) * 1.0)
        self.rows += len(a)
        self.apart += float(apart.sum())
        self.size += float(size.sum())
        self.largest = max(self.largest, float(np.abs(a - b).max(initial=0)))
        self.cosines += float(cosines.sum())
        self.least = min(self.least, float(cosines.min(initial=1)))
        return _ratio(np.sqrt(apart), np.sqrt(size)), cosines

    def result(self) -> ArrayDifference:
        """The difference over all rows that were added."""
        error = float(_ratio(np.sqrt(self.apart), np.sqrt(self.size)))
        mean = self.cosines / self.rows if self.rows else 0.0
        return ArrayDifference(
            self.name, "", self.rows, self.equal, error, self.largest, mean, self.least if self.rows else 0.0
        )


def _as_numbers(stored: np.ndarray, dtype: str) -> np.ndarray:
    """Stored elements as numbers, without rounding."""
    return to_float32(stored, dtype) if dtype == "bfloat16" else stored


def _ratio(above: Any, below: Any) -> Any:
    """above / below; 0 if both are 0, the largest float if only `below` is (JSON has no infinity)."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), (above > 0) * np.finfo(np.float64).max)


def _join(
    a: Store, slots_a: np.ndarray, b: Store, slots_b: np.ndarray
) -> tuple[OnlyIn, OnlyIn, np.ndarray, np.ndarray]:
    """Rows in only one side, and the slots of the rows in both: those in a and those in b, in a's order."""
    ids_a, ids_b = (store.row_ids()[slots].copy().view("V16")[:, 0] for store, slots in ((a, slots_a), (b, slots_b)))
    place_b = {row.tobytes(): place for place, row in enumerate(ids_b)}
    places = np.array([place_b.get(row.tobytes(), -1) for row in ids_a], np.int64)
    in_both = np.zeros(len(ids_b), bool)
    in_both[places[places >= 0]] = True
    return (
        _only(ids_a[places < 0]),
        _only(ids_b[~in_both]),
        slots_a[places >= 0],
        slots_b[places[places >= 0]],
    )


def _only(ids: np.ndarray) -> OnlyIn:
    return OnlyIn(len(ids), tuple(row.tobytes().hex() for row in ids[:_MOST_ROWS]))


def _agree(a: list[Receipt], b: list[Receipt]) -> bool:
    """Whether both have the same partitions with the same values, by their checksums."""
    if [receipt.partition for receipt in a] != [receipt.partition for receipt in b]:
        return False
    return all(x.agrees(y) and x.missing.keys() == y.missing.keys() for x, y in zip(a, b, strict=True))


def _first_compared(spec: FeatureSpec, compared: dict[str, _ArrayComparison]) -> str:
    return next((name for name in ("states", "mean", *spec.arrays) if name in compared), "")


def _worst(
    worst: list[RowDifference],
    ids: np.ndarray,
    slots: tuple[np.ndarray, np.ndarray],
    errors: np.ndarray,
    cosines: np.ndarray,
) -> list[RowDifference]:
    """The rows with the largest errors among those so far and these; rows without an error are left out."""
    candidates = [
        RowDifference(
            ids[slots[0][i]].tobytes().hex(), int(slots[0][i]), int(slots[1][i]), float(errors[i]), float(cosines[i])
        )
        for i in np.argsort(-errors)[:_MOST_ROWS]
        if errors[i] > 0
    ]
    return sorted([*worst, *candidates], key=lambda row: -row.relative_error)[:_MOST_ROWS]


def _why_not(a: FeatureSpec, b: FeatureSpec, name: str) -> str:
    if name not in a.arrays or name not in b.arrays:
        return f"only in {(a if name in a.arrays else b).name}"
    return f"shapes {a.arrays[name].shape} and {b.arrays[name].shape} differ"
