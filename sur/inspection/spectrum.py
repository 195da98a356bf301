"""Covariance of vectors that come block by block, and how many dimensions they really use."""

from __future__ import annotations

import numpy as np

CHUNK = 4096  # vectors whose products are summed at once, in float32


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
