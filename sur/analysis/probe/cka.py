"""Linear CKA without the bias of few rows, from minibatches.

Kornblith et al. 2019 (arXiv 1905.00414) for the index; Song et al. 2012 (JMLR 13) for HSIC_1, the estimator of HSIC
without bias; Nguyen, Raghu and Kornblith 2021 (arXiv 2010.15327) for its mean over minibatches.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sur.evaluation.statistics import Interval, interval

SMALLEST = 4  # rows of a minibatch below which HSIC_1 is not defined


def hsic_1(x: Float[np.ndarray, "rows dim"], y: Float[np.ndarray, "rows other"]) -> float:
    """HSIC_1 of linear kernels.

    With K, L the Gram matrices with zeroed diagonals and n rows, it is
    (tr(K L) + sum(K) sum(L) / ((n-1)(n-2)) - 2 sum(K L) / (n-2)) / (n (n-3)).

    Raises: ValueError for fewer than four rows.
    """
    n = len(x)
    if n < SMALLEST:
        raise ValueError(f"HSIC_1 needs at least {SMALLEST} rows, got {n}; use larger minibatches")
    gram_x, gram_y = (vectors.astype(np.float64) @ vectors.astype(np.float64).T for vectors in (x, y))
    np.fill_diagonal(gram_x, 0)
    np.fill_diagonal(gram_y, 0)
    cross = 2 * (gram_x.sum(0) @ gram_y.sum(0)) / (n - 2)
    total = (gram_x * gram_y).sum() + gram_x.sum() * gram_y.sum() / ((n - 1) * (n - 2)) - cross
    return float(total / (n * (n - 3)))


def hsic_triple(x: Float[np.ndarray, "rows dim"], y: Float[np.ndarray, "rows other"]) -> tuple[float, float, float]:
    """HSIC_1 of a minibatch: between x and y, of x with itself, of y with itself."""
    x, y = x - x.mean(0), y - y.mean(0)  # the same in theory; in floats it saves digits
    return hsic_1(x, y), hsic_1(x, x), hsic_1(y, y)


def cka(batches: Float[np.ndarray, "batches 3"], resamples: int, seed: int) -> Interval:
    """CKA from the minibatches' `hsic_triple`s, with an interval by resampling minibatches.

    CKA may be slightly below 0 where two features have nothing in common. It is NaN where one of them does not vary.
    """

    def ratio(sums: Float[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any"]:
        scale = np.sqrt(np.clip(sums[..., 1], 0, None) * np.clip(sums[..., 2], 0, None))
        return np.divide(sums[..., 0], scale, out=np.full(scale.shape, np.nan), where=scale > 0)

    draws = np.random.default_rng([seed, 3]).integers(len(batches), size=(resamples, len(batches)))
    return interval(float(ratio(batches.mean(0))), ratio(batches[draws].mean(1)))
