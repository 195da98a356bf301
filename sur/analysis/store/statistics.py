"""Statistics of one feature over all of its rows, in one pass and a memory that does not grow with the rows.

What is counted are vectors: the states of a prompt's own tokens (not its padding), a row's pooled state, or the
channels at each place of the latents. Mean, deviation, counts and histograms are exact over all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from sur.analysis.moments import Covariance, RunningMoments
from sur.analysis.store.blocks import Block, is_latents, main_array, partition_blocks, valued_slots
from sur.cache import FeatureSpec, Store

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
    `spectrum_vectors` vectors, between 1 and dim; None without a spread. effective_rank_ordinary: the same of those
    vectors that hold no massive activation, which else decide it alone.
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
        """Plain JSON of it; null what no vector gave."""
        lists = ("dimension_mean", "dimension_deviation", "dimension_largest")
        unknown = () if self.vectors else ("mean", "deviation", "smallest", "largest", "norms", *lists)
        return asdict(self) | dict.fromkeys(unknown)


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
        self.moments, self.norms = RunningMoments(self.dim), Norms()
        self.spectra: tuple[Covariance, Covariance] | None = None  # of ordinary vectors, and of massive ones
        self.massive: dict[int, list[float]] = {}  # dimension -> activations, rows, largest
        per_row = int(np.prod(shape, dtype=np.int64)) // self.dim
        self.every = max(1, round(rows * per_row / SPECTRUM_VECTORS))  # rows between two that give the covariance
        self.seen = 0

    def add(self, block: Block) -> None:
        """Count a block's rows."""
        self.rows += len(block.slots)
        if block.lengths is not None:
            self.lengths.update(block.lengths.tolist())
        kept = [self._finite(vectors) for vectors in self._rows(block)]
        vectors = np.concatenate(kept)
        if len(vectors):
            self.moments.add(vectors)
            self.norms.add(np.linalg.norm(vectors, axis=1))
        massive = [self._look_for_massive(each) for each in kept]
        sampled = [row for row in range(len(kept)) if (self.seen + row) % self.every == 0]
        self.seen += len(kept)
        if sampled:
            self._add_to_spectra(
                np.concatenate([kept[row] for row in sampled]), np.concatenate([massive[row] for row in sampled])
            )

    def _finite(self, vectors: np.ndarray) -> np.ndarray:
        """The vectors of a row that are finite throughout; other numbers are counted."""
        good = np.isfinite(vectors)
        if good.all():
            return vectors
        self.nan += int(np.isnan(vectors).sum())
        self.infinite += int(np.isinf(vectors).sum())
        return vectors[good.all(axis=1)]

    def _add_to_spectra(self, vectors: np.ndarray, massive: np.ndarray) -> None:
        if len(vectors) == 0:
            return
        if self.spectra is None:
            ordinary = vectors[~massive] if not massive.all() else vectors
            origin = ordinary.mean(axis=0, dtype=np.float64).astype(np.float32)
            self.spectra = (Covariance(origin), Covariance(origin))
        self.spectra[0].add(vectors[~massive])
        self.spectra[1].add(vectors[massive])

    def _rows(self, block: Block) -> Iterator[np.ndarray]:
        """The vectors that count of each row, float32 (vectors, dim)."""
        for row, values in enumerate(block.values):
            if block.counted is not None:
                yield values[block.counted[row]]
            elif is_latents(self.spec):
                yield np.moveaxis(values, 1, -1).reshape(-1, self.dim)
            else:
                yield values.reshape(-1, self.dim)

    def _look_for_massive(self, vectors: np.ndarray) -> np.ndarray:
        """Count a row's massive activations; returns which of its vectors hold one, bool (n,)."""
        if vectors.size == 0 or max(vectors.max(), -vectors.min()) <= MASSIVE_MAGNITUDE:
            return np.zeros(len(vectors), bool)
        magnitudes = np.abs(vectors)
        found = (magnitudes > MASSIVE_MAGNITUDE) & (magnitudes >= MASSIVE_RATIO * np.median(magnitudes))
        for dimension in np.flatnonzero(found.any(axis=0)).tolist():
            entry = self.massive.setdefault(dimension, [0, 0, 0.0])
            entry[0] += int(found[:, dimension].sum())
            entry[1] += 1
            entry[2] = max(entry[2], float(magnitudes[:, dimension].max()))
        return found.any(axis=1)

    def result(self, missing: int, done: int, total: int) -> FeatureStatistics:
        """The statistics of what was counted."""
        moments = self.moments
        sampled = self.spectra[0] + self.spectra[1] if self.spectra else None
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
            effective_rank_ordinary=self.spectra[0].effective_rank() if self.spectra else None,
            spectrum_vectors=sampled.count if sampled else 0,
            token_lengths=tuple(sorted(self.lengths.items())),
            dimension_mean=tuple(moments.mean.tolist()),
            dimension_deviation=tuple(moments.deviation().tolist()),
            dimension_largest=tuple(np.maximum(moments.largest, -moments.smallest).tolist()) if moments.count else (),
        )


PER_DOUBLING = 256  # fixed bins between a norm and twice it: each is 0.27 % wide
LOWEST, HIGHEST = -40, 60  # exponents of two
SHOWN = 32  # bins of the result, at most


@dataclass(frozen=True)
class NormHistogram:
    """Counts of vectors by Euclidean norm: `counts[i]` lie in edges[i] <= norm < edges[i + 1].

    Edges are powers of 2^(1/256), and the counts are exact. `zeros` have norm 0 and are in no bin. mean, smallest
    and largest are exact, the median within 0.3 %.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    zeros: int
    mean: float
    median: float
    smallest: float
    largest: float


class Norms:
    """Norms counted so far."""

    def __init__(self) -> None:
        self._counts = np.zeros((HIGHEST - LOWEST) * PER_DOUBLING, np.int64)
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
        """The counts so far, in at most `SHOWN` bins of equal ratio."""
        there = np.flatnonzero(self._counts)
        if not len(there):
            least = 0.0 if self._count else self._largest
            return NormHistogram((), (), self._zeros, 0.0, 0.0, least, self._largest)
        first, last = int(there[0]), int(there[-1]) + 1
        step = -(-(last - first) // SHOWN)
        starts = np.arange(first, last, step)
        edges = _EDGES[[*starts, min(starts[-1] + step, len(_EDGES) - 1)]]
        counts = np.add.reduceat(self._counts[:last], starts)
        middle = int(np.searchsorted(np.cumsum(self._counts) + self._zeros, (self._count + 1) // 2))
        median = 0.0 if 2 * self._zeros > self._count else float(np.sqrt(_EDGES[middle] * _EDGES[middle + 1]))
        return NormHistogram(
            tuple(edges.tolist()), tuple(counts.tolist()), self._zeros, self._sum / self._count, median,
            self._smallest, self._largest,
        )  # fmt: skip


_EDGES = 2.0 ** (np.arange((HIGHEST - LOWEST) * PER_DOUBLING + 1) / PER_DOUBLING + LOWEST)
