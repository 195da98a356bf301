"""Mean, deviation, range and covariance of vectors that are seen once, a batch at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """Of n rows: their mean (dim,) and the sum of (x - mean)(x - mean)^T, (dim, dim), float64.

    Sets of rows are joined and taken apart by the formulas of Chan, Golub and LeVeque (1979), which lose no digits to
    a mean that is large beside the spread, as a sum of squares does.
    """

    n: int
    mean: Float[np.ndarray, " dim"]
    comoment: Float[np.ndarray, "dim dim"]

    @classmethod
    def none(cls, dim: int) -> Moments:
        """Of no row."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, rows: NDArray[np.floating]) -> Moments:
        """Of rows (n, dim)."""
        if len(rows) == 0:
            return cls.none(rows.shape[1])
        rows = rows.astype(np.float64)
        mean = rows.mean(0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        """Of both sets of rows."""
        n = self.n + other.n
        if other.n == 0 or self.n == 0:
            return self if other.n == 0 else other
        apart = other.mean - self.mean
        comoment = self.comoment + other.comoment
        comoment += np.outer(apart * (self.n * other.n / n), apart)
        return Moments(n, self.mean + apart * (other.n / n), comoment)

    def __sub__(self, part: Moments) -> Moments:
        """Of the rows that are not in `part`, which are all among these."""
        n = self.n - part.n
        if part.n == 0 or n == 0:
            return self if part.n == 0 else Moments.none(len(self.mean))
        mean = (self.n * self.mean - part.n * part.mean) / n
        apart = part.mean - mean
        comoment = self.comoment - part.comoment
        comoment -= np.outer(apart * (n * part.n / self.n), apart)
        return Moments(n, mean, comoment)


CHUNK = 4096  # vectors that are summed at once


class RunningMoments:
    """Running moments in float64, merged block by block as Chan, Golub & LeVeque 1979 do, so nothing cancels."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = np.zeros(dim)
        self.smallest = np.full(dim, np.inf)
        self.largest = np.full(dim, -np.inf)
        self._squares = np.zeros(dim)  # summed squared deviations from the mean

    def add(self, vectors: np.ndarray) -> None:
        """Count vectors, float32 (n, dim)."""
        for start in range(0, len(vectors), CHUNK):
            self._merge(vectors[start : start + CHUNK])
        np.minimum(self.smallest, vectors.min(axis=0), out=self.smallest)
        np.maximum(self.largest, vectors.max(axis=0), out=self.largest)

    def overall_mean(self) -> float:
        """Mean of all numbers."""
        return float(self.mean.mean()) if self.count else 0.0

    def overall_deviation(self) -> float:
        """Standard deviation of all numbers."""
        return float(np.sqrt(self._squares.mean() / self.count + self.mean.var())) if self.count else 0.0

    def deviation(self) -> np.ndarray:
        """Standard deviation of each dimension, float64 (dim,)."""
        return np.sqrt(self._squares / max(self.count, 1))

    def _merge(self, vectors: np.ndarray) -> None:
        wide = vectors.astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean
        np.square(wide, out=wide)
        apart, both = mean - self.mean, self.count + len(wide)
        self._squares += wide.sum(axis=0) + apart**2 * (self.count * len(wide) / both)
        self.mean += apart * (len(wide) / both)
        self.count = both


class Covariance:
    """Sums of products in float64 around `origin`, float32 (dim,): near the mean, so that no digits are lost."""

    def __init__(self, origin: np.ndarray) -> None:
        self.origin = origin
        self.count = 0
        self._sum = np.zeros(len(origin))
        self._products = np.zeros((len(origin), len(origin)))

    def add(self, vectors: np.ndarray) -> None:
        """Count vectors, float32 (n, dim)."""
        for start in range(0, len(vectors), CHUNK):
            apart = vectors[start : start + CHUNK] - self.origin
            self._products += apart.T @ apart
            self._sum += apart.sum(axis=0, dtype=np.float64)
        self.count += len(vectors)

    def __add__(self, other: Covariance) -> Covariance:
        """Of the vectors of both, which have the same origin."""
        both = Covariance(self.origin)
        both.count = self.count + other.count
        both._sum = self._sum + other._sum
        both._products = self._products + other._products
        return both

    def effective_rank(self) -> float | None:
        """exp(-sum p log p), p the eigenvalues over their sum (Roy & Vetterli 2007); None without a spread."""
        if self.count < 2:
            return None
        mean = self._sum / self.count
        spectrum = np.linalg.eigvalsh(self._products / self.count - np.outer(mean, mean)).clip(min=0)
        if spectrum.sum() <= 0:
            return None
        share = spectrum / spectrum.sum()
        share = share[share > 0]
        return float(np.exp(-(share * np.log(share)).sum()))
