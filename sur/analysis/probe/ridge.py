"""Ridge regression from a covariance, for every penalty at once.

Columns of an input (the text encoder's vector, the LLM's) are standardised so that their variances sum to the input's
scale squared. So one penalty is fair to a narrow and to a wide input, and the scale is the trust in an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from sur.analysis.moments import Covariance

PENALTIES = np.logspace(-5, 0.5, 12)  # beside eigenvalues whose sum is 1
CONSTANT = 1e-12  # variance over the square of the mean, up to which a column counts as one that does not vary


@dataclass(frozen=True)
class RidgeInput:
    """Columns of the covariance that are one input, and its scale."""

    columns: slice
    scale: float


@dataclass(frozen=True)
class RidgePath:
    """Regressions of one set of rows, for any penalty, in the eigenvectors of the inputs' covariance."""

    columns: np.ndarray
    centre: Float[np.ndarray, " p"]
    directions: Float[np.ndarray, "p r"]
    eigenvalues: Float[np.ndarray, " r"]
    answers: Float[np.ndarray, "r q"]
    target_mean: Float[np.ndarray, " q"]

    def predict(self, rows: Float[np.ndarray, "n dim"], penalty: float) -> Float[np.ndarray, "n q"]:
        """Predicted targets of rows that hold all columns of the covariance."""
        turned = (rows[:, self.columns] - self.centre) @ self.directions
        return (turned / (self.eigenvalues + penalty)) @ self.answers + self.target_mean

    def squared_errors(
        self, rows: Float[np.ndarray, "n dim"], targets: Float[np.ndarray, "n q"], penalties: Sequence[float]
    ) -> Float[np.ndarray, "penalties n"]:
        """|predicted - target|^2 of every row under every penalty, computed in float32."""
        turned = ((rows[:, self.columns] - self.centre) @ self.directions).astype(np.float32)
        answers, centred = self.answers.astype(np.float32), (targets - self.target_mean).astype(np.float32)
        divisors = [(self.eigenvalues + penalty).astype(np.float32) for penalty in penalties]
        return np.stack([np.square(turned / d @ answers - centred).sum(1, dtype=np.float64) for d in divisors])


def ridge_path(rows: Covariance, inputs: Sequence[RidgeInput], targets: slice) -> RidgePath:
    """The regressions from the inputs to the columns `targets`.

    Raises: ValueError for fewer than two rows.
    """
    if rows.count < 2:
        raise ValueError(f"a regression needs at least two rows, got {rows.count}")
    places, variance = np.arange(len(rows.mean)), np.diag(rows.comoment) / rows.count
    columns = np.concatenate([places[one.columns] for one in inputs])
    total = sum(one.scale**2 for one in inputs)
    factors = np.concatenate(
        [_factors(variance[i.columns], rows.mean[i.columns], i.scale / np.sqrt(total)) for i in inputs]
    )
    covariance = rows.comoment[np.ix_(columns, columns)] / rows.count * np.outer(factors, factors)
    shared = rows.comoment[columns, targets] / rows.count * factors[:, None]
    eigenvalues, directions = eigh(covariance, driver="evd", overwrite_a=True, check_finite=False)
    return RidgePath(
        columns,
        rows.mean[columns],
        factors[:, None] * directions,
        eigenvalues.clip(0),
        directions.T @ shared,
        rows.mean[targets],
    )


def _factors(variance: np.ndarray, mean: np.ndarray, scale: float) -> np.ndarray:
    """The factor of each column of an input; 0 for a column that does not vary."""
    varies = variance > CONSTANT * np.square(mean)
    return np.where(varies, scale / np.sqrt(np.where(varies, variance, 1) * max(1, varies.sum())), 0)
