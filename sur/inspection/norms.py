"""A histogram of norms in one pass: counts in narrow fixed bins, joined into a few wide ones at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
