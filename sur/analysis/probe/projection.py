"""Narrow vectors from wide features: columns standardised by a sample, then a random projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class RandomProjection:
    """x -> (x - mean) * factor, then times a random matrix if x is wider than the width asked for.

    A Gaussian matrix keeps distances and inner products up to a relative error of about 1 / sqrt(width) (Johnson and
    Lindenstrauss 1984), so a linear function of the wide feature is nearly a linear function of the narrow one.
    """

    mean: Float[np.ndarray, " dim"]
    factor: Float[np.ndarray, " dim"]
    matrix: Float[np.ndarray, "dim width"] | None

    @property
    def width(self) -> int:
        """Numbers in a projected vector."""
        return len(self.mean) if self.matrix is None else self.matrix.shape[1]

    def __call__(self, rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n width"]:
        """The projected rows, float32."""
        scaled = ((rows - self.mean) * self.factor).astype(np.float32)
        return scaled if self.matrix is None else scaled @ self.matrix


def standardising_projection(sample: Float[np.ndarray, "n dim"], width: int, seed: int) -> RandomProjection:
    """The projection that first gives every column of the sample variance 1; a column that does not vary becomes 0."""
    deviation = sample.astype(np.float64).std(0)
    mean = sample.astype(np.float64).mean(0)
    varies = deviation > 1e-6 * np.abs(mean)
    return random_projection(mean, np.where(varies, 1 / np.where(varies, deviation, 1), 0), width, seed)


def random_projection(
    mean: Float[np.ndarray, " dim"], factor: Float[np.ndarray, " dim"], width: int, seed: int
) -> RandomProjection:
    """The projection with a shift and a factor for each column, to `width` columns if there are more."""
    dim, matrix = len(mean), None
    if dim > width:
        rng = np.random.default_rng([seed, 4, dim])
        matrix = rng.standard_normal((dim, width), dtype=np.float32) / np.float32(np.sqrt(width))
    return RandomProjection(mean.astype(np.float32), factor.astype(np.float32), matrix)
