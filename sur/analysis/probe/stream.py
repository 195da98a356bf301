"""One pass over a feature: sums from which its candidates are scored, in memory that does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sur.analysis.moments import Covariance
from sur.analysis.probe.candidates import LayerCandidate, pool_tokens
from sur.analysis.probe.cka import SMALLEST, hsic_triple
from sur.analysis.probe.projection import RandomProjection, standardising_projection
from sur.analysis.probe.rows import ProbeRows, finite_numpy, probe_batches
from sur.analysis.probe.texts import TextVectors
from sur.cache import Store
from sur.config.probe import ProbeConfig


@dataclass
class CandidateSums:
    """Sums over a candidate's rows. Columns: the text encoder's vector, the LLM's, the target.

    total: covariance of all rows. hidden: by split, that of each fold's hidden rows. judged: by split, the LLM's
    vectors of each fold's judged rows. similarities: a line a minibatch, see `sur.analysis.probe.cka`.
    """

    candidate: LayerCandidate
    total: Covariance
    hidden: dict[str, list[Covariance]]
    judged: dict[str, list[Float[np.ndarray, "judged width"]]]
    similarities: list[tuple[float, float, float]]


def accumulate(
    store: Store,
    candidates: Sequence[LayerCandidate],
    rows: ProbeRows,
    texts: TextVectors,
    config: ProbeConfig,
) -> list[CandidateSums]:
    """The sums of all candidates that are made of one feature, which is read once."""
    feature = candidates[0].feature
    projected: list[tuple[CandidateSums, RandomProjection]] = []
    for places, batch in probe_batches(store, feature, rows, config):
        states, length = batch.arrays[f"{feature}/states"], batch.arrays[f"{feature}/length"]
        pooled = [finite_numpy(pool_tokens(states, length, c.pooling), feature, batch) for c in candidates]
        if not projected:  # projections are fitted to the first batch
            projections = [standardising_projection(vectors, config.width, config.seed) for vectors in pooled]
            projected = [
                (_empty_sums(candidate, projection.width, rows, texts), projection)
                for candidate, projection in zip(candidates, projections, strict=True)
            ]
        for (sums, projection), vectors in zip(projected, pooled, strict=True):
            _add(sums, projection(vectors), places, rows, texts)
    return [sums for sums, _ in projected]


def accumulate_noise(like: CandidateSums, rows: ProbeRows, texts: TextVectors, config: ProbeConfig) -> CandidateSums:
    """The sums of random numbers in the place of a candidate's vectors."""
    width = len(like.total.mean) - texts.simple.shape[1] - texts.target.shape[1]
    noise = np.random.default_rng([config.seed, 7]).standard_normal((len(rows.slots), width), dtype=np.float32)
    sums = _empty_sums(like.candidate, width, rows, texts)
    for start in range(0, len(noise), config.batch_rows):
        places = np.arange(start, min(start + config.batch_rows, len(noise)))
        _add(sums, noise[places], places, rows, texts)
    return sums


def _empty_sums(candidate: LayerCandidate, width: int, rows: ProbeRows, texts: TextVectors) -> CandidateSums:
    """Sums before the first row."""
    empty = Covariance.empty(texts.simple.shape[1] + width + texts.target.shape[1])
    hidden = {split: [empty] * len(folds) for split, folds in rows.folds.items()}
    judged = {s: [np.empty((len(f.judged), width), np.float32) for f in folds] for s, folds in rows.folds.items()}
    return CandidateSums(candidate, empty, hidden, judged, [])


def _add(sums: CandidateSums, vectors: np.ndarray, places: np.ndarray, rows: ProbeRows, texts: TextVectors) -> None:
    """Add a batch to the sums."""
    target = texts.target[places]
    joined = np.concatenate([texts.simple[places], vectors, target], 1)
    sums.total += Covariance.of(joined)
    if len(places) >= SMALLEST:
        sums.similarities.append(hsic_triple(vectors, target))
    for split, folds in rows.folds.items():
        for number, fold in enumerate(folds):
            sums.hidden[split][number] += Covariance.of(joined[fold.hidden[places]])
            judged = np.isin(places, fold.judged)
            sums.judged[split][number][np.searchsorted(fold.judged, places[judged])] = vectors[judged]
