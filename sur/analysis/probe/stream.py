"""One pass over a feature: everything that its candidates are judged by, in memory that does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sur.analysis.moments import Moments
from sur.analysis.probe.candidates import Candidate, pool
from sur.analysis.probe.cka import SMALLEST, similarities
from sur.analysis.probe.projection import Projection, standardising
from sur.analysis.probe.rows import ProbeRows, batches, finite
from sur.analysis.probe.texts import Texts
from sur.cache import Store
from sur.config.probe import ProbeConfig


@dataclass
class Seen:
    """What is kept of a candidate. Columns: the text encoder's vector, the LLM's, the target.

    total: moments of all rows. hidden: by split, of each fold's hidden rows. judged: by split, the LLM's vectors of
    each fold's judged rows. similarities: a line a minibatch, see `sur.analysis.probe.cka`.
    """

    candidate: Candidate
    total: Moments
    hidden: dict[str, list[Moments]]
    judged: dict[str, list[Float[np.ndarray, "judged width"]]]
    similarities: list[tuple[float, float, float]]


def see(
    store: Store,
    candidates: Sequence[Candidate],
    rows: ProbeRows,
    texts: Texts,
    config: ProbeConfig,
) -> list[Seen]:
    """Read one feature once, for all candidates that are made of it."""
    feature = candidates[0].feature
    found: list[tuple[Seen, Projection]] = []
    for places, batch in batches(store, feature, rows, config):
        states, length = batch.arrays[f"{feature}/states"], batch.arrays[f"{feature}/length"]
        pooled = [finite(pool(states, length, each.pooling), feature, batch) for each in candidates]
        if not found:
            fitted = [standardising(vectors, config.width, config.seed) for vectors in pooled]
            found = [
                (_nothing(each, projection.width, rows, texts), projection)
                for each, projection in zip(candidates, fitted, strict=True)
            ]
        for (seen, projection), vectors in zip(found, pooled, strict=True):
            _add(seen, projection(vectors), places, rows, texts)
    return [seen for seen, _ in found]


def see_noise(like: Seen, rows: ProbeRows, texts: Texts, config: ProbeConfig) -> Seen:
    """Random numbers in the place of a candidate's."""
    width = len(like.total.mean) - texts.simple.shape[1] - texts.target.shape[1]
    noise = np.random.default_rng([config.seed, 7]).standard_normal((len(rows.slots), width), dtype=np.float32)
    seen = _nothing(like.candidate, width, rows, texts)
    for start in range(0, len(noise), config.batch_rows):
        places = np.arange(start, min(start + config.batch_rows, len(noise)))
        _add(seen, noise[places], places, rows, texts)
    return seen


def _nothing(candidate: Candidate, width: int, rows: ProbeRows, texts: Texts) -> Seen:
    """Before the first row."""
    none = Moments.none(texts.simple.shape[1] + width + texts.target.shape[1])
    hidden = {split: [none] * len(folds) for split, folds in rows.folds.items()}
    judged = {s: [np.empty((len(f.judged), width), np.float32) for f in folds] for s, folds in rows.folds.items()}
    return Seen(candidate, none, hidden, judged, [])


def _add(seen: Seen, vectors: np.ndarray, places: np.ndarray, rows: ProbeRows, texts: Texts) -> None:
    """Take a batch into the sums."""
    target = texts.target[places]
    joined = np.concatenate([texts.simple[places], vectors, target], 1)
    seen.total += Moments.of(joined)
    if len(places) >= SMALLEST:
        seen.similarities.append(similarities(vectors, target))
    for split, folds in rows.folds.items():
        for number, fold in enumerate(folds):
            seen.hidden[split][number] += Moments.of(joined[fold.hidden[places]])
            here = np.isin(places, fold.judged)
            seen.judged[split][number][np.searchsorted(fold.judged, places[here])] = vectors[here]
