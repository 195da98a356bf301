"""Mean, deviation and covariance of vectors that come block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CHUNK = 4096  # vectors whose squares are summed at once, in float64


class Moments:
    """Running moments in float64, merged block by block as Chan, Golub & LeVeque 1979 do, so nothing cancels."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = np.zeros(dim)
        self.smallest = np.full(dim, np.inf)
        self.largest = np.full(dim, -np.inf)
        self._squares = np.zeros(dim)  # summed squared deviations from the mean
        self.sampled = 0
        self._origin: np.ndarray | None = None  # near the mean, so that float32 products keep their digits
        self._sum = np.zeros(dim)
        self._products: np.ndarray | None = None

    def add(self, vectors: np.ndarray, sampled: np.ndarray | None = None) -> None:
        """Count vectors, float32 (n, dim); those `sampled`, bool (n,), give the covariance too."""
        for start in range(0, len(vectors), CHUNK):
            self._merge(vectors[start : start + CHUNK])
        np.minimum(self.smallest, vectors.min(axis=0), out=self.smallest)
        np.maximum(self.largest, vectors.max(axis=0), out=self.largest)
        if sampled is not None and sampled.any():
            self._add_products(vectors[sampled])

    def overall_mean(self) -> float:
        """Mean of all numbers."""
        return float(self.mean.mean()) if self.count else 0.0

    def overall_deviation(self) -> float:
        """Standard deviation of all numbers."""
        return float(np.sqrt(self._squares.mean() / self.count + self.mean.var())) if self.count else 0.0

    def deviation(self) -> np.ndarray:
        """Standard deviation of each dimension, float64 (dim,)."""
        return np.sqrt(self._squares / max(self.count, 1))

    def effective_rank(self, without: Sequence[int] = ()) -> float | None:
        """exp(-sum p log p), p the eigenvalues of the covariance over their sum; None without a spread to speak of.

        `without`: dimensions that are left out.
        """
        if self._products is None or self.sampled < 2:
            return None
        mean = self._sum / self.sampled
        covariance = self._products / self.sampled - np.outer(mean, mean)
        covariance = np.delete(np.delete(covariance, list(without), axis=0), list(without), axis=1)
        spectrum = np.linalg.eigvalsh(covariance).clip(min=0)
        if spectrum.sum() <= 0:
            return None
        share = spectrum / spectrum.sum()
        share = share[share > 0]
        return float(np.exp(-(share * np.log(share)).sum()))

    def _merge(self, vectors: np.ndarray) -> None:
        wide = vectors.astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean
        np.square(wide, out=wide)
        apart, both = mean - self.mean, self.count + len(wide)
        self._squares += wide.sum(axis=0) + apart**2 * (self.count * len(wide) / both)
        self.mean += apart * (len(wide) / both)
        self.count = both

    def _add_products(self, vectors: np.ndarray) -> None:
        if self._origin is None or self._products is None:
            self._origin = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
            self._products = np.zeros((vectors.shape[1],) * 2)
        for start in range(0, len(vectors), CHUNK):
            apart = vectors[start : start + CHUNK] - self._origin
            self._products += apart.T @ apart
            self._sum += apart.sum(axis=0, dtype=np.float64)
        self.sampled += len(vectors)
