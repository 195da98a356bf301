"""Ridge regression from moments, for every penalty at once.

Inputs come in blocks (the text encoder's vector, the LLM's). Columns are standardised and every block's variance
sums to its scale squared, so that one penalty is fair to a narrow and to a wide block, and the scale says how far each
is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from sur.analysis.moments import Moments

PENALTIES = np.logspace(-5, 0.5, 12)  # beside eigenvalues whose sum is 1
CONSTANT = 1e-12  # variance, beside the square of the mean, of a column that does not vary


@dataclass(frozen=True)
class Block:
    """Columns of the moments that are one input, and how far it is trusted."""

    columns: slice
    scale: float


@dataclass(frozen=True)
class RidgePath:
    """Regressions of one set of rows: weights for any penalty lie in the eigenvectors of the inputs' covariance."""

    inputs: np.ndarray
    centre: Float[np.ndarray, " p"]
    directions: Float[np.ndarray, "p r"]
    eigenvalues: Float[np.ndarray, " r"]
    answers: Float[np.ndarray, "r q"]
    target_mean: Float[np.ndarray, " q"]

    def predict(self, rows: Float[np.ndarray, "n dim"], penalty: float) -> Float[np.ndarray, "n q"]:
        """Targets of rows that hold all columns of the moments."""
        turned = (rows[:, self.inputs] - self.centre) @ self.directions
        return (turned / (self.eigenvalues + penalty)) @ self.answers + self.target_mean

    def squared_errors(
        self, rows: Float[np.ndarray, "n dim"], targets: Float[np.ndarray, "n q"], penalties: Sequence[float]
    ) -> Float[np.ndarray, "penalties n"]:
        """|predicted - target|^2 of every row under every penalty, computed in float32."""
        turned = ((rows[:, self.inputs] - self.centre) @ self.directions).astype(np.float32)
        answers, wanted = self.answers.astype(np.float32), (targets - self.target_mean).astype(np.float32)
        divisors = [(self.eigenvalues + penalty).astype(np.float32) for penalty in penalties]
        return np.stack([np.square(turned / each @ answers - wanted).sum(1, dtype=np.float64) for each in divisors])


def ridge_path(moments: Moments, blocks: Sequence[Block], targets: slice) -> RidgePath:
    """Fit the blocks to the columns `targets`.

    Raises ValueError for fewer than two rows.
    """
    if moments.n < 2:
        raise ValueError(f"a regression needs at least two rows, got {moments.n}")
    every, diagonal = np.arange(len(moments.mean)), np.diag(moments.comoment) / moments.n
    inputs = np.concatenate([every[block.columns] for block in blocks])
    total = sum(block.scale**2 for block in blocks)
    factors = np.concatenate(
        [_factors(diagonal[b.columns], moments.mean[b.columns], b.scale / np.sqrt(total)) for b in blocks]
    )
    covariance = moments.comoment[np.ix_(inputs, inputs)] / moments.n * np.outer(factors, factors)
    shared = moments.comoment[inputs, targets] / moments.n * factors[:, None]
    eigenvalues, directions = eigh(covariance, driver="evd", overwrite_a=True, check_finite=False)
    return RidgePath(
        inputs,
        moments.mean[inputs],
        factors[:, None] * directions,
        eigenvalues.clip(0),
        directions.T @ shared,
        moments.mean[targets],
    )


def _factors(variance: np.ndarray, mean: np.ndarray, scale: float) -> np.ndarray:
    """What each column of a block is multiplied by; 0 for one that does not vary."""
    varies = variance > CONSTANT * np.square(mean)
    return np.where(varies, scale / np.sqrt(np.where(varies, variance, 1) * max(1, varies.sum())), 0)
