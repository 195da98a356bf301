"""Mean, deviation, range and covariance of vectors that are seen once, some at a time.

Everything is summed in float64. Two sets of vectors are merged as Chan, Golub and LeVeque (1979) do, which loses no
digits to a mean that is large beside the spread; a sum of squares does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

_CHUNK = 4096  # vectors that are summed at once


class DimensionMoments:
    """Count, mean, deviation and range of each dimension; the memory is that of a few vectors."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = np.zeros(dim)
        self.smallest = np.full(dim, np.inf)
        self.largest = np.full(dim, -np.inf)
        self._squares = np.zeros(dim)  # summed squared deviations from the mean

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Count vectors, float32 (n, dim)."""
        for start in range(0, len(vectors), _CHUNK):
            self._merge(vectors[start : start + _CHUNK].astype(np.float64))
        np.minimum(self.smallest, vectors.min(axis=0), out=self.smallest)
        np.maximum(self.largest, vectors.max(axis=0), out=self.largest)

    def deviation(self) -> Float[np.ndarray, " dim"]:
        """Standard deviation of each dimension, float64."""
        return np.sqrt(self._squares / max(self.count, 1))

    def overall_mean(self) -> float:
        """Mean of all numbers."""
        return float(self.mean.mean()) if self.count else 0.0

    def overall_deviation(self) -> float:
        """Standard deviation of all numbers."""
        return float(np.sqrt(self._squares.mean() / self.count + self.mean.var())) if self.count else 0.0

    def _merge(self, vectors: NDArray[np.float64]) -> None:
        mean = vectors.mean(axis=0)
        vectors -= mean
        np.square(vectors, out=vectors)
        self.count, self.mean, delta, weight = _merged(self.count, self.mean, len(vectors), mean)
        self._squares += vectors.sum(axis=0) + delta**2 * weight


@dataclass
class Covariance:
    """Count, mean (dim,) and comoment (dim, dim) of some vectors: the sum of (x - mean)(x - mean)^T, float64."""

    count: int
    mean: Float[np.ndarray, " dim"]
    comoment: Float[np.ndarray, "dim dim"]

    @classmethod
    def empty(cls, dim: int) -> Covariance:
        """That of no vector."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Covariance:
        """That of vectors (n, dim), computed in float64."""
        if len(vectors) == 0:
            return cls.empty(vectors.shape[1])
        vectors = vectors.astype(np.float64)
        mean = vectors.mean(0)
        centred = vectors - mean
        return cls(len(vectors), mean, centred.T @ centred)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Count more vectors, float32 (n, dim), in place; products of deviations are float32, sums of them float64."""
        for start in range(0, len(vectors), _CHUNK):
            chunk = vectors[start : start + _CHUNK]
            mean = chunk.mean(axis=0, dtype=np.float64)
            self.count, self.mean, delta, weight = _merged(self.count, self.mean, len(chunk), mean)
            # One more row adds the outer product of the means' difference, without a second matrix of dim x dim.
            deviations = np.vstack([chunk - mean.astype(np.float32), (delta * np.sqrt(weight)).astype(np.float32)])
            self.comoment += deviations.T @ deviations

    def __add__(self, other: Covariance) -> Covariance:
        """That of both sets of vectors."""
        if other.count == 0 or self.count == 0:
            return self if other.count == 0 else other
        count, mean, delta, weight = _merged(self.count, self.mean, other.count, other.mean)
        comoment = self.comoment + other.comoment
        comoment += np.outer(delta * weight, delta)
        return Covariance(count, mean, comoment)

    def __sub__(self, part: Covariance) -> Covariance:
        """That of the vectors that are not in `part`, all of which are among these."""
        rest = self.count - part.count
        if part.count == 0 or rest == 0:
            return self if part.count == 0 else Covariance.empty(len(self.mean))
        mean = (self.count * self.mean - part.count * part.mean) / rest
        _, _, delta, weight = _merged(rest, mean, part.count, part.mean)
        comoment = self.comoment - part.comoment
        comoment -= np.outer(delta * weight, delta)
        return Covariance(rest, mean, comoment)

    def effective_rank(self) -> float | None:
        """exp(-sum p log p), p the eigenvalues over their sum (Roy & Vetterli 2007); None without a spread."""
        if self.count < 2:
            return None
        spectrum = np.linalg.eigvalsh(self.comoment / self.count).clip(min=0)
        if spectrum.sum() <= 0:
            return None
        share = spectrum / spectrum.sum()
        share = share[share > 0]
        return float(np.exp(-(share * np.log(share)).sum()))


def _merged(
    count: int, mean: NDArray[np.float64], other_count: int, other_mean: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64], NDArray[np.float64], float]:
    """Count and mean of two sets of vectors, the difference of their means, and the weight of its square.

    The squared deviations of both sets together are those of each set plus weight * difference^2.
    """
    both = count + other_count
    delta = other_mean - mean
    return both, mean + delta * (other_count / both), delta, count * other_count / both
