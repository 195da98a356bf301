"""Statistics of one feature over all of its rows, in one pass and a memory that does not grow with the rows.

The statistics are of vectors: the states of a prompt's own tokens (not its padding), a row's pooled state, or the
channels at each place of the latents. Mean, deviation, counts and histograms are exact over all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from sur.analysis.moments import Covariance, DimensionMoments
from sur.analysis.store.blocks import RowBlock, is_latents, main_array, partition_blocks, valued_slots
from sur.cache import FeatureSpec, Store

MASSIVE_MAGNITUDE, MASSIVE_RATIO = 100.0, 1000.0  # Sun et al. 2024, section 2
SPECTRUM_VECTORS = 50_000  # vectors that give the covariance, at most about as many, of rows spread evenly
NORM_BINS = 32  # bins of the norms' histogram, at most
BINS_PER_DOUBLING = 256  # fixed bins between a norm and twice it: each is 0.27 % wide
LOWEST_EXPONENT, HIGHEST_EXPONENT = -40, 60  # of two, between which norms are told apart
_EDGES = 2.0 ** (
    np.arange((HIGHEST_EXPONENT - LOWEST_EXPONENT) * BINS_PER_DOUBLING + 1) / BINS_PER_DOUBLING + LOWEST_EXPONENT
)


@dataclass(frozen=True)
class MassiveDimension:
    """A dimension with massive activations: their number, the number of rows with one, and the largest magnitude."""

    dimension: int
    activations: int
    rows: int
    largest: float


@dataclass(frozen=True)
class NormHistogram:
    """Counts of vectors by Euclidean norm: `counts[i]` vectors have edges[i] <= norm < edges[i + 1].

    Edges are powers of 2^(1/256), and the counts are exact. `zeros` vectors have norm 0 and are in no bin. mean,
    smallest and largest are exact, the median is within 0.3 %.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    zeros: int
    mean: float
    median: float
    smallest: float
    largest: float


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of one array of a feature, over the rows that have a value.

    mean, deviation: of all numbers; `dimension_*`: of each dimension over the vectors (population deviation).
    nan, infinite: how many numbers are NaN or infinite; a vector with such a number counts nowhere else.
    dead: dimensions that never change. massive: dimensions with activations of a magnitude over 100 and at least 1,000
    times the median magnitude of their row's states (Sun et al. 2024, arXiv 2402.17762).
    effective_rank: exp of the entropy of the normalised spectrum (Roy & Vetterli 2007), of the covariance of
    `spectrum_vectors` vectors, between 1 and dim; None without a spread. effective_rank_ordinary: the same without the
    vectors that hold a massive activation, since a few of those decide the rank of all.
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
    effective_rank_ordinary: float | None
    spectrum_vectors: int
    token_lengths: tuple[tuple[int, int], ...]
    dimension_mean: tuple[float, ...]
    dimension_deviation: tuple[float, ...]
    dimension_largest: tuple[float, ...]

    def to_json(self) -> dict:
        """The statistics as plain JSON; null for a number of no vector."""
        lists = ("dimension_mean", "dimension_deviation", "dimension_largest")
        unknown = () if self.vectors else ("mean", "deviation", "smallest", "largest", "norms", *lists)
        return asdict(self) | dict.fromkeys(unknown)


def feature_statistics(
    store: Store, name: str, progress: Callable[[int, int], None] | None = None
) -> FeatureStatistics:
    """Statistics of a feature's main array (`states`, or the `mean` of latents), over the partitions that are done.

    progress: is called with rows done and rows in all.

    Raises:
        UnknownFeature: the store has no such feature; the message names those that exist.
        NotInStore: the feature holds no floats.
        CorruptStore: a checksum does not match.
    """
    spec = store.spec(name)
    slots, receipts = valued_slots(store, name)
    sums = _Sums(spec, len(slots))
    for receipt in receipts:
        for block in partition_blocks(store, name, receipt):
            sums.add(block)
            if progress is not None:
                progress(sums.rows, len(slots))
    return sums.result(sum(len(r.missing) for r in receipts), len(receipts), store.n_partitions)


class _Sums:
    """Counts and sums of one pass over the rows."""

    def __init__(self, spec: FeatureSpec, rows: int) -> None:
        self.spec = spec
        self.array = main_array(spec)
        shape = spec.arrays[self.array].shape
        self.dim = shape[1] if is_latents(spec) else (shape[-1] if shape else 1)
        self.rows = 0
        self.nan = self.infinite = 0
        self.lengths: Counter[int] = Counter()
        self.moments, self.norms = DimensionMoments(self.dim), _NormCounts()
        self.covariances: tuple[Covariance, Covariance] | None = None  # of ordinary vectors, and of massive ones
        self.massive: dict[int, list[float]] = {}  # dimension -> activations, rows, largest
        per_row = int(np.prod(shape, dtype=np.int64)) // self.dim
        self.every = max(1, round(rows * per_row / SPECTRUM_VECTORS))  # one row in so many gives the covariance

    def add(self, block: RowBlock) -> None:
        """Count a block's rows."""
        if block.lengths is not None:
            self.lengths.update(block.lengths.tolist())
        by_row = [self._finite(vectors) for vectors in self._vectors(block)]
        vectors = np.concatenate(by_row)
        if len(vectors):
            self.moments.add(vectors)
            self.norms.add(np.linalg.norm(vectors, axis=1))
        massive = [self._find_massive(row) for row in by_row]
        sampled = [row for row in range(len(by_row)) if (self.rows + row) % self.every == 0]
        self.rows += len(block.slots)
        if sampled:
            self._add_to_covariances(
                np.concatenate([by_row[row] for row in sampled]), np.concatenate([massive[row] for row in sampled])
            )

    def _finite(self, vectors: np.ndarray) -> np.ndarray:
        """The vectors of a row whose numbers are all finite; the other numbers are counted."""
        finite = np.isfinite(vectors)
        if finite.all():
            return vectors
        self.nan += int(np.isnan(vectors).sum())
        self.infinite += int(np.isinf(vectors).sum())
        return vectors[finite.all(axis=1)]

    def _add_to_covariances(self, vectors: np.ndarray, massive: np.ndarray) -> None:
        if len(vectors) == 0:
            return
        if self.covariances is None:
            self.covariances = (Covariance.empty(self.dim), Covariance.empty(self.dim))
        self.covariances[0].add(vectors[~massive])
        self.covariances[1].add(vectors[massive])

    def _vectors(self, block: RowBlock) -> Iterator[np.ndarray]:
        """The vectors of each row, float32 (vectors, dim), without padding."""
        for row, values in enumerate(block.values):
            if block.counted is not None:
                yield values[block.counted[row]]
            elif is_latents(self.spec):
                yield np.moveaxis(values, 1, -1).reshape(-1, self.dim)
            else:
                yield values.reshape(-1, self.dim)

    def _find_massive(self, vectors: np.ndarray) -> np.ndarray:
        """Count a row's massive activations; returns which of its vectors hold one, bool (n,)."""
        if vectors.size == 0 or max(vectors.max(), -vectors.min()) <= MASSIVE_MAGNITUDE:
            return np.zeros(len(vectors), bool)
        magnitudes = np.abs(vectors)
        massive = (magnitudes > MASSIVE_MAGNITUDE) & (magnitudes >= MASSIVE_RATIO * np.median(magnitudes))
        for dimension in np.flatnonzero(massive.any(axis=0)).tolist():
            entry = self.massive.setdefault(dimension, [0, 0, 0.0])
            entry[0] += int(massive[:, dimension].sum())
            entry[1] += 1
            entry[2] = max(entry[2], float(magnitudes[:, dimension].max()))
        return massive.any(axis=1)

    def result(self, missing: int, done: int, total: int) -> FeatureStatistics:
        """The statistics of all rows that were added; the arguments count rows and partitions."""
        moments = self.moments
        sampled = self.covariances[0] + self.covariances[1] if self.covariances else None
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
            effective_rank=sampled.effective_rank() if sampled else None,
            effective_rank_ordinary=self.covariances[0].effective_rank() if self.covariances else None,
            spectrum_vectors=sampled.count if sampled else 0,
            token_lengths=tuple(sorted(self.lengths.items())),
            dimension_mean=tuple(moments.mean.tolist()),
            dimension_deviation=tuple(moments.deviation().tolist()),
            dimension_largest=tuple(np.maximum(moments.largest, -moments.smallest).tolist()) if moments.count else (),
        )


class _NormCounts:
    """Counts of norms in the fixed bins between `_EDGES`."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) - 1, np.int64)
        self._zeros = self._count = 0
        self._sum = 0.0
        self._smallest, self._largest = np.inf, 0.0

    def add(self, norms: np.ndarray) -> None:
        """Count norms, float (n,)."""
        positive = norms[norms > 0].astype(np.float64)
        self._zeros += len(norms) - len(positive)
        self._count += len(norms)
        self._sum += float(positive.sum())
        self._smallest = min(self._smallest, float(norms.min()))
        self._largest = max(self._largest, float(norms.max()))
        places = np.searchsorted(_EDGES, positive, side="right") - 1
        self._counts += np.bincount(places.clip(0, len(self._counts) - 1), minlength=len(self._counts))

    def histogram(self) -> NormHistogram:
        """The counts so far, in at most `NORM_BINS` bins of equal ratio."""
        filled = np.flatnonzero(self._counts)
        if not len(filled):
            least = 0.0 if self._count else self._largest
            return NormHistogram((), (), self._zeros, 0.0, 0.0, least, self._largest)
        first, last = int(filled[0]), int(filled[-1]) + 1
        step = -(-(last - first) // NORM_BINS)
        starts = np.arange(first, last, step)
        edges = _EDGES[[*starts, min(starts[-1] + step, len(_EDGES) - 1)]]
        counts = np.add.reduceat(self._counts[:last], starts)
        middle = int(np.searchsorted(np.cumsum(self._counts) + self._zeros, (self._count + 1) // 2))
        median = 0.0 if 2 * self._zeros > self._count else float(np.sqrt(_EDGES[middle] * _EDGES[middle + 1]))
        return NormHistogram(
            tuple(edges.tolist()), tuple(counts.tolist()), self._zeros, self._sum / self._count, median,
            self._smallest, self._largest,
        )  # fmt: skip
