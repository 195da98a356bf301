"""Statistics of one feature over all of its rows, in one pass and a memory that does not grow with the rows.

What is counted are vectors: the states of a prompt's own tokens (not its padding), a row's pooled state, or the
channels at each place of the latents. Mean, deviation, counts and histograms are exact over all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from cache import FeatureSpec, Store
from sur.inspection.blocks import Block, is_latents, main_array, partition_blocks, valued_slots
from sur.inspection.moments import Moments
from sur.inspection.norms import NormHistogram, Norms

MASSIVE_MAGNITUDE, MASSIVE_RATIO = 100.0, 1000.0  # Sun et al. 2024, section 2
SPECTRUM_VECTORS = 50_000  # at most about as many, of rows spread evenly, give the covariance


@dataclass(frozen=True)
class MassiveDimension:
    """A dimension with massive activations: how many, in how many rows, and the largest magnitude."""

    dimension: int
    activations: int
    rows: int
    largest: float


@dataclass(frozen=True)
class FeatureStatistics:
    """What one array of a feature holds, over the rows that have a value.

    mean, deviation: of all numbers; `dimension_*`: of each dimension over the vectors (population deviation).
    nan, infinite: numbers that are such; vectors with one are left out of everything else.
    dead: dimensions that never change. massive: dimensions with activations of a magnitude over 100 and at least 1,000
    times the median magnitude of their row's states (Sun et al. 2024, arXiv 2402.17762).
    effective_rank: exp of the entropy of the normalised spectrum (Roy & Vetterli 2007), of the covariance of
    `spectrum_vectors` vectors, between 1 and dim; None with fewer than two. effective_rank_rest: the same without the
    massive dimensions, which else decide it alone.
    token_lengths: (tokens, rows) ascending, empty where rows have no tokens.
    """

    name: str
    array: str
    kind: str
    shape: tuple[int, ...]
    dim: int
    rows: int
    rows_missing: int
    partitions_done: int
    partitions_total: int
    vectors: int
    mean: float
    deviation: float
    smallest: float
    largest: float
    nan: int
    infinite: int
    norms: NormHistogram
    dead: tuple[int, ...]
    massive: tuple[MassiveDimension, ...]
    effective_rank: float | None
    effective_rank_rest: float | None
    spectrum_vectors: int
    token_lengths: tuple[tuple[int, int], ...]
    dimension_mean: tuple[float, ...]
    dimension_deviation: tuple[float, ...]
    dimension_largest: tuple[float, ...]

    def to_json(self) -> dict:
        """Plain JSON of it."""
        return asdict(self)


def feature_statistics(
    store: Store, name: str, progress: Callable[[int, int], None] | None = None
) -> FeatureStatistics:
    """Statistics of a feature's main array (`states`, or the `mean` of latents), over the partitions that are done.

    `progress` hears rows done and rows in all.

    Raises:
        UnknownFeature: the store has no such feature; names those that exist.
        NotInStore: it holds no floats.
        CorruptStore: a checksum does not match.
    """
    spec = store.spec(name)
    slots, receipts = valued_slots(store, name)
    gathered = _Gathered(spec, len(slots))
    for receipt in receipts:
        for block in partition_blocks(store, name, receipt):
            gathered.add(block)
            if progress is not None:
                progress(gathered.rows, len(slots))
    return gathered.result(sum(len(r.missing) for r in receipts), len(receipts), store.n_partitions)


class _Gathered:
    """What one pass over the rows collects."""

    def __init__(self, spec: FeatureSpec, rows: int) -> None:
        self.spec = spec
        self.array = main_array(spec)
        shape = spec.arrays[self.array].shape
        self.dim = shape[1] if is_latents(spec) else (shape[-1] if shape else 1)
        self.rows = 0
        self.nan = self.infinite = 0
        self.lengths: Counter[int] = Counter()
        self.moments, self.norms = Moments(self.dim), Norms()
        self.massive: dict[int, list[float]] = {}  # dimension -> activations, rows, largest
        per_row = int(np.prod(shape, dtype=np.int64)) // self.dim
        self.every = max(1, round(rows * per_row / SPECTRUM_VECTORS))  # rows between two that give the covariance
        self.seen = 0

    def add(self, block: Block) -> None:
        """Count a block's rows."""
        self.rows += len(block.slots)
        if block.lengths is not None:
            self.lengths.update(block.lengths.tolist())
        kept = []
        for row, vectors in enumerate(self._rows(block)):
            good = np.isfinite(vectors)
            if not good.all():
                self.nan += int(np.isnan(vectors).sum())
                self.infinite += int(np.isinf(vectors).sum())
                vectors = vectors[good.all(axis=1)]
            self._look_for_massive(vectors)
            kept.append((vectors, (self.seen + row) % self.every == 0))
        self.seen += len(block.slots)
        vectors = np.concatenate([vectors for vectors, _ in kept])
        if len(vectors):
            in_spectrum = np.repeat([sampled for _, sampled in kept], [len(vectors) for vectors, _ in kept])
            self.moments.add(vectors, in_spectrum)
            self.norms.add(np.linalg.norm(vectors, axis=1))

    def _rows(self, block: Block) -> Iterator[np.ndarray]:
        """The vectors that count of each row, float32 (vectors, dim)."""
        for row, values in enumerate(block.values):
            if block.counted is not None:
                yield values[block.counted[row]]
            elif is_latents(self.spec):
                yield np.moveaxis(values, 1, -1).reshape(-1, self.dim)
            else:
                yield values.reshape(-1, self.dim)

    def _look_for_massive(self, vectors: np.ndarray) -> None:
        if vectors.size == 0 or max(vectors.max(), -vectors.min()) <= MASSIVE_MAGNITUDE:
            return
        magnitudes = np.abs(vectors)
        found = magnitudes >= max(MASSIVE_RATIO * float(np.median(magnitudes)), np.nextafter(MASSIVE_MAGNITUDE, np.inf))
        for dimension in np.flatnonzero(found.any(axis=0)).tolist():
            entry = self.massive.setdefault(dimension, [0, 0, 0.0])
            entry[0] += int(found[:, dimension].sum())
            entry[1] += 1
            entry[2] = max(entry[2], float(magnitudes[:, dimension].max()))

    def result(self, missing: int, done: int, total: int) -> FeatureStatistics:
        """The statistics of what was counted."""
        moments = self.moments
        massive = sorted(self.massive.items(), key=lambda item: (-item[1][0], item[0]))
        return FeatureStatistics(
            name=self.spec.name,
            array=self.array,
            kind=self.spec.kind,
            shape=self.spec.arrays[self.array].shape,
            dim=self.dim,
            rows=self.rows,
            rows_missing=missing,
            partitions_done=done,
            partitions_total=total,
            vectors=moments.count,
            mean=moments.overall_mean(),
            deviation=moments.overall_deviation(),
            smallest=float(moments.smallest.min()) if moments.count else 0.0,
            largest=float(moments.largest.max()) if moments.count else 0.0,
            nan=self.nan,
            infinite=self.infinite,
            norms=self.norms.histogram(),
            dead=tuple(np.flatnonzero(moments.smallest == moments.largest).tolist()) if moments.count else (),
            massive=tuple(MassiveDimension(d, int(n), int(rows), most) for d, (n, rows, most) in massive),
            effective_rank=moments.effective_rank(),
            effective_rank_rest=moments.effective_rank(without=list(self.massive)),
            spectrum_vectors=moments.sampled,
            token_lengths=tuple(sorted(self.lengths.items())),
            dimension_mean=tuple(moments.mean.tolist()),
            dimension_deviation=tuple(moments.deviation().tolist()),
            dimension_largest=tuple(np.maximum(moments.largest, -moments.smallest).tolist()) if moments.count else (),
        )
