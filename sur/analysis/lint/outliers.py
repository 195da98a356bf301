"""Rows that lie far from all others in a feature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sur.analysis.lint.finding import Finding
from sur.analysis.lint.prompts import quoted, single_row_finding
from sur.cache import RowRecord

_BLOCK_ROWS = 8192
FEWEST_ROWS = 30


def scores(vectors: np.ndarray) -> np.ndarray:
    """Modified z-score of the distance of each vector, float32 (rows, dim), to the mean, float64 (rows,).

    0.6745 (d - median) / median |d - median|, d the distance's logarithm (Iglewicz & Hoaglin 1993).
    """
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    blocks = range(0, len(vectors), _BLOCK_ROWS)
    distance = np.concatenate([np.linalg.norm(vectors[s : s + _BLOCK_ROWS] - mean, axis=1) for s in blocks])
    logs = np.log(np.maximum(distance.astype(np.float64), np.finfo(np.float32).tiny))
    apart = logs - np.median(logs)
    spread = float(np.median(np.abs(apart)))
    return 0.6745 * apart / spread if spread > 0 else np.zeros(len(logs))


def outliers(rows: list[RowRecord], vectors: np.ndarray, feature: str, limit: float) -> Iterator[Finding]:
    """Findings of rows whose vector has a score above `limit`; among fewer than 30 rows there are none."""
    if len(rows) < FEWEST_ROWS:
        return
    all_scores = scores(vectors)
    for index in np.flatnonzero(all_scores > limit).tolist():
        row = rows[index]
        message = f"{feature} lies far from all others' (score {all_scores[index]:.1f}) for {quoted(row.simple)}"
        remedy = "look at the row (`sur inspect --row`); leave it out if it is broken"
        yield single_row_finding("outlier", row, message, remedy)
