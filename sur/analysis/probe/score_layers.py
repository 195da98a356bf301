"""Scores of a candidate: how well held-back rows are predicted from the text encoder's vector, an LLM's, and both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sur.analysis.moments import Covariance
from sur.analysis.probe.folds import Fold
from sur.analysis.probe.results import HeldOutScores
from sur.analysis.probe.ridge import PENALTIES, RidgeInput, RidgePath, ridge_path
from sur.analysis.probe.stream import CandidateSums
from sur.analysis.probe.texts import TextVectors
from sur.config.probe import ProbeConfig
from sur.evaluation.statistics import Interval, interval

LLM_SCALES = (0.5, 2.0)  # scales of the LLM's vector, beside 1 of the text encoder's


@dataclass(frozen=True)
class SplitScores:
    """The scores on a split, and the gain in every resample (the same resamples for every candidate)."""

    held: HeldOutScores
    gains: Float[np.ndarray, " resamples"]


def score_held_out(
    sums: CandidateSums,
    split: str,
    folds: list[Fold],
    texts: TextVectors,
    complexes: Int[np.ndarray, " rows"],
    config: ProbeConfig,
) -> SplitScores:
    """Scores of a candidate on a split's held-back rows.

    Each fold is predicted by regressions of the rows outside it, with the penalty and scale that are best for the
    held-back rows of the other folds.
    """
    options = [_regressions(sums.total - hidden, texts) for hidden in sums.hidden[split]]
    inputs = [np.hstack([texts.simple[f.judged], v]) for f, v in zip(folds, sums.judged[split], strict=True)]
    targets = [texts.target[fold.judged] for fold in folds]
    errors = [
        {name: path.squared_errors(x, y, PENALTIES.tolist()) for name, path in paths.items()}
        for paths, x, y in zip(options, inputs, targets, strict=True)
    ]
    kinds = {"text": ["text"], "llm": ["llm"], "both": list(options[0])}
    columns: dict[str, list[np.ndarray]] = {"spread": []}
    for number, (paths, x, y) in enumerate(zip(options, inputs, targets, strict=True)):
        centre = paths["text"].target_mean
        columns["spread"].append(np.square(y - centre).sum(1))
        other_folds = [fold_errors for other, fold_errors in enumerate(errors) if other != number]
        for kind, names in kinds.items():
            name, place = _least_error(other_folds, names)
            predicted = paths[name].predict(x, float(PENALTIES[place]))
            right = _retrieved(predicted - centre, y - centre, complexes[folds[number].judged])
            columns.setdefault(f"{kind} error", []).append(np.square(y - predicted).sum(1))
            columns.setdefault(f"{kind} common", []).append(_common_error(y - predicted, folds[number].unit))
            columns.setdefault(f"{kind} right", []).append(right)
    units = np.concatenate([fold.unit for fold in folds])
    return _summarise(
        {key: np.concatenate(parts) for key, parts in columns.items()}, units, len(folds), split == "words", config
    )


def _regressions(train: Covariance, texts: TextVectors) -> dict[str, RidgePath]:
    """Regressions from the covariance of the rows outside a fold, by name."""
    first, last = texts.simple.shape[1], len(train.mean) - texts.target.shape[1]
    text, llm, target = slice(0, first), slice(first, last), slice(last, None)
    alone = {"text": [RidgeInput(text, 1)], "llm": [RidgeInput(llm, 1)]}
    both = {f"both {scale:.2g}": [RidgeInput(text, 1), RidgeInput(llm, scale)] for scale in LLM_SCALES}
    return {name: ridge_path(train, inputs, target) for name, inputs in {**alone, **both}.items()}


def _least_error(errors: list[dict[str, np.ndarray]], names: list[str]) -> tuple[str, int]:
    """The regression and the place of its penalty with the least mean error over folds."""
    means = {name: np.mean([fold[name].mean(1) for fold in errors], 0) for name in names}
    best = min(names, key=lambda name: means[name].min())
    return best, int(means[best].argmin())


def _retrieved(
    predicted: Float[np.ndarray, "n q"], targets: Float[np.ndarray, "n q"], complexes: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """1 for a row whose prediction has the largest cosine with the target of its own complex prompt, else 0."""
    norms = [np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (predicted, targets)]
    cosines = (predicted / np.maximum(norms[0], 1e-30)) @ (targets / np.maximum(norms[1], 1e-30)).T
    return (complexes[cosines.argmax(1)] == complexes).astype(np.float64)


def _common_error(errors: Float[np.ndarray, "n q"], units: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Squared length of the mean error of each row's unit, without bias: e_i . (mean of the unit's other errors).

    Its mean over a unit's rows estimates |E e|^2. It is zero for a unit of one row, which cannot tell |E e|^2 from
    noise.
    """
    unique, unit = np.unique(units, return_inverse=True)
    sums = np.zeros((len(unique), errors.shape[1]))
    np.add.at(sums, unit, errors)
    others = np.bincount(unit)[unit] - 1
    return (errors * (sums[unit] - errors)).sum(1) / np.maximum(others, 1)


def _summarise(
    columns: dict[str, np.ndarray], units: Int[np.ndarray, " judged"], folds: int, words: bool, config: ProbeConfig
) -> SplitScores:
    """The scores over all units, with intervals by resampling units, since the rows of a unit are not independent."""
    unique, unit = np.unique(units, return_inverse=True)
    rng = np.random.default_rng([config.seed, 5])
    counts = rng.multinomial(len(unique), np.full(len(unique), 1 / len(unique)), size=config.resamples)
    columns = {**columns, "rows": np.ones(len(units))}
    sums = {key: np.bincount(unit, values, len(unique)) for key, values in columns.items()}
    # The first number is that of the units as they are, the others are those of the resamples.
    totals = {key: np.concatenate([[values.sum()], counts @ values]) for key, values in sums.items()}

    def r2(kind: str) -> np.ndarray:
        return 1 - totals[f"{kind} error"] / totals["spread"]

    def with_interval(values: np.ndarray) -> Interval:
        return interval(float(values[0]), values[1:])

    def known(kind: str) -> np.ndarray:
        return 1 - totals[f"{kind} common"] / totals["text common"]

    gain = r2("both") - r2("text")
    # Without a common error of the text encoder there is nothing to know, or there are too few rows to say.
    words = words and bool((totals["text common"] > 0).all())
    kinds = ("text", "llm", "both")
    held = HeldOutScores(
        rows=len(units),
        units=len(unique),
        gallery=len(units) / folds,
        r2={kind: with_interval(r2(kind)) for kind in kinds},
        retrieval={kind: with_interval(totals[f"{kind} right"] / totals["rows"]) for kind in kinds},
        gain=with_interval(gain),
        known={kind: with_interval(known(kind)) for kind in ("llm", "both")} if words else {},
    )
    return SplitScores(held, gain[1:])
