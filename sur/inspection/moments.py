"""Mean, deviation and range of vectors that come block by block."""

from __future__ import annotations

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
