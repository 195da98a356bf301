"""The probe: every candidate of a store, judged on the same held-back rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np

from sur.analysis.probe.candidates import Candidate, candidates_of, names_of
from sur.analysis.probe.cka import cka, similarities
from sur.analysis.probe.results import Findings, Held, Measured, best_of
from sur.analysis.probe.rows import ProbeRows, probe_rows
from sur.analysis.probe.score_layers import Judgement, judge
from sur.analysis.probe.stream import Seen, see, see_noise
from sur.analysis.probe.texts import Texts, read_texts, text_slug
from sur.cache import Store
from sur.config.probe import ProbeConfig
from sur.evaluation.statistics import Interval


def probe(
    store: Store,
    config: ProbeConfig = ProbeConfig(),  # noqa: B008, frozen
    on_feature: Callable[[str], None] = lambda name: None,
) -> Findings:
    """Compare all candidates. `on_feature` hears of each feature that is done: the text encoder's two, then the LLMs'.

    Raises:
        ConfigError: the store has no LLM's features, not one text encoder's, or too few rows.
        IncompleteFeature: a feature is not extracted to its end.
    """
    candidates = candidates_of(store)
    slug = text_slug(store, config)
    features = list(dict.fromkeys(each.feature for each in candidates))
    rows = probe_rows(store, [f"text.{slug}.simple", f"text.{slug}.complex", *features], config)
    texts = read_texts(store, slug, rows, config, on_feature)
    judged: list[tuple[Candidate, Interval, dict[str, Judgement]]] = []
    noise: dict[str, Held] = {}
    for feature, same in groupby(candidates, key=lambda each: each.feature):
        for seen in see(store, list(same), rows, texts, config):
            splits = _judged(seen, rows, texts, config)
            if not noise:
                splits_of_noise = _judged(see_noise(seen, rows, texts, config), rows, texts, config)
                noise = {split: each.held for split, each in splits_of_noise.items()}
            similar = cka(np.array(seen.similarities), config.resamples, config.seed)
            judged.append((seen.candidate, similar, splits))
        on_feature(feature)
    measured = _with_firsts(judged)
    ranked_on: str = "words" if "words" in rows.folds else "rows"
    return Findings(
        store=str(store.path), text=slug, target=texts.target_name, rows=len(rows.slots), settings=config,
        text_cka=_text_cka(texts, rows, config), ranked_on=ranked_on, noise=noise,
        candidates=measured, best=best_of(measured, noise[ranked_on], ranked_on),
    )  # fmt: skip


def _judged(seen: Seen, rows: ProbeRows, texts: Texts, config: ProbeConfig) -> dict[str, Judgement]:
    """One candidate on every split."""
    return {split: judge(seen, split, folds, texts, rows.complexes, config) for split, folds in rows.folds.items()}


def _with_firsts(judged: list[tuple[Candidate, Interval, dict[str, Judgement]]]) -> list[Measured]:
    """Each candidate with the share of resamples in which no other gains more."""
    found = []
    names = names_of([candidate for candidate, _, _ in judged])
    for name, (candidate, similar, splits) in zip(names, judged, strict=True):
        held = {}
        for split, each in splits.items():
            best = np.max([others[split].gains for _, _, others in judged], axis=0)
            held[split] = each.held.model_copy(update={"first": float((each.gains >= best).mean())})
        found.append(
            Measured(
                name=name,
                feature=candidate.feature,
                model=candidate.model,
                layer=candidate.layer,
                stored=candidate.stored,
                pooling=candidate.pooling,
                cka=similar,
                held=held,
            )  # fmt: skip
        )
    return found


def _text_cka(texts: Texts, rows: ProbeRows, config: ProbeConfig) -> Interval:
    """CKA of the text encoder's own vector with the target, for comparison."""
    order = np.random.default_rng([config.seed, 6]).permutation(len(rows.slots))
    parts = [order[start : start + config.batch_rows] for start in range(0, len(order), config.batch_rows)]
    found = [similarities(texts.simple[part], texts.target[part]) for part in parts if len(part) >= 4]
    return cka(np.array(found), config.resamples, config.seed)
