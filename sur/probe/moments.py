"""Mean and co-moments of rows that are seen once, a batch at a time."""

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
