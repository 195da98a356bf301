"""The probe: every candidate of a store, scored on the same held-back rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from sur.analysis.probe.candidates import LayerCandidate, candidates_of, names_of
from sur.analysis.probe.cka import SMALLEST, cka, hsic_triple
from sur.analysis.probe.results import CandidateScores, HeldOutScores, ProbeResult, best_of
from sur.analysis.probe.rows import ProbeRows, probe_rows
from sur.analysis.probe.score_layers import SplitScores, score_held_out
from sur.analysis.probe.stream import CandidateSums, accumulate, accumulate_noise
from sur.analysis.probe.texts import TextVectors, read_text_vectors, text_slug
from sur.cache import Store
from sur.config.probe import ProbeConfig
from sur.evaluation.statistics import Interval


@dataclass(frozen=True)
class _Scored:
    """A candidate, its CKA with the target, and its scores by split."""

    candidate: LayerCandidate
    cka: Interval
    splits: dict[str, SplitScores]


def probe(
    store: Store,
    config: ProbeConfig = ProbeConfig(),  # noqa: B008, frozen
    on_feature: Callable[[str], None] = lambda name: None,
) -> ProbeResult:
    """Scores of all candidates of a store.

    on_feature: is called with each feature that is done: the text encoder's two, then the LLMs'.

    Raises:
        ConfigError: the store has no LLM's features, not exactly one text encoder's, or too few rows.
        IncompleteFeature: a feature is not extracted to its end.
    """
    candidates = candidates_of(store)
    slug = text_slug(store, config)
    features = list(dict.fromkeys(candidate.feature for candidate in candidates))
    rows = probe_rows(store, [f"text.{slug}.simple", f"text.{slug}.complex", *features], config)
    texts = read_text_vectors(store, slug, rows, config, on_feature)
    scored: list[_Scored] = []
    noise: dict[str, HeldOutScores] = {}
    for feature, of_feature in groupby(candidates, key=lambda candidate: candidate.feature):
        for sums in accumulate(store, list(of_feature), rows, texts, config):
            splits = _split_scores(sums, rows, texts, config)
            if not noise:
                noise_splits = _split_scores(accumulate_noise(sums, rows, texts, config), rows, texts, config)
                noise = {split: scores.held for split, scores in noise_splits.items()}
            similarity = cka(np.array(sums.similarities), config.resamples, config.seed)
            scored.append(_Scored(sums.candidate, similarity, splits))
        on_feature(feature)
    scores = _with_firsts(scored)
    ranked_on: str = "words" if "words" in rows.folds else "rows"
    return ProbeResult(
        store=str(store.path), text=slug, target=texts.target_name, rows=len(rows.slots), settings=config,
        text_cka=_text_cka(texts, rows, config), ranked_on=ranked_on, noise=noise,
        candidates=scores, best=best_of(scores, noise[ranked_on], ranked_on),
    )  # fmt: skip


def _split_scores(
    sums: CandidateSums, rows: ProbeRows, texts: TextVectors, config: ProbeConfig
) -> dict[str, SplitScores]:
    """Scores of one candidate on every split."""
    return {
        split: score_held_out(sums, split, folds, texts, rows.complexes, config) for split, folds in rows.folds.items()
    }


def _with_firsts(scored: list[_Scored]) -> list[CandidateScores]:
    """Each candidate's scores, with the share of resamples in which no other candidate gains more."""
    results = []
    for name, one in zip(names_of([other.candidate for other in scored]), scored, strict=True):
        held = {}
        for split, scores in one.splits.items():
            best = np.max([other.splits[split].gains for other in scored], axis=0)
            held[split] = scores.held.model_copy(update={"first": float((scores.gains >= best).mean())})
        candidate = one.candidate
        results.append(
            CandidateScores(
                name=name,
                feature=candidate.feature,
                model=candidate.model,
                layer=candidate.layer,
                stored=candidate.stored,
                pooling=candidate.pooling,
                cka=one.cka,
                held=held,
            )
        )
    return results


def _text_cka(texts: TextVectors, rows: ProbeRows, config: ProbeConfig) -> Interval:
    """CKA of the text encoder's own vector with the target, for comparison."""
    order = np.random.default_rng([config.seed, 6]).permutation(len(rows.slots))
    parts = [order[start : start + config.batch_rows] for start in range(0, len(order), config.batch_rows)]
    triples = [hsic_triple(texts.simple[part], texts.target[part]) for part in parts if len(part) >= SMALLEST]
    return cka(np.array(triples), config.resamples, config.seed)
