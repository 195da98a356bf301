"""How well held-back rows are predicted from the text encoder's vector, from an LLM's, and from both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sur.analysis.moments import Moments
from sur.analysis.probe.folds import Fold
from sur.analysis.probe.results import Held
from sur.analysis.probe.ridge import PENALTIES, Block, RidgePath, ridge_path
from sur.analysis.probe.stream import Seen
from sur.analysis.probe.texts import Texts
from sur.config.probe import ProbeConfig
from sur.evaluation.statistics import Interval, interval

LLM_SCALES = (0.5, 2.0)  # trust in the LLM's vector beside the text encoder's


@dataclass(frozen=True)
class Judgement:
    """The numbers of a split, and the gain in every resample (the same resamples for every candidate)."""

    held: Held
    gains: Float[np.ndarray, " resamples"]


def judge(
    seen: Seen,
    split: str,
    folds: list[Fold],
    texts: Texts,
    complexes: Int[np.ndarray, " rows"],
    config: ProbeConfig,
) -> Judgement:
    """Fit without each fold, judge on it; penalty and scale are the best ones for the other folds' held-back rows."""
    options = [_options(seen.total - hidden, texts) for hidden in seen.hidden[split]]
    inputs = [np.hstack([texts.simple[f.judged], v]) for f, v in zip(folds, seen.judged[split], strict=True)]
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
        others = [each for other, each in enumerate(errors) if other != number]
        for kind, names in kinds.items():
            name, place = _chosen(others, names)
            predicted = paths[name].predict(x, float(PENALTIES[place]))
            right = _retrieved(predicted - centre, y - centre, complexes[folds[number].judged])
            columns.setdefault(f"{kind} error", []).append(np.square(y - predicted).sum(1))
            columns.setdefault(f"{kind} common", []).append(_common(y - predicted, folds[number].unit))
            columns.setdefault(f"{kind} right", []).append(right)
    units = np.concatenate([fold.unit for fold in folds])
    return _summarise(
        {key: np.concatenate(parts) for key, parts in columns.items()}, units, len(folds), split == "words", config
    )


def _options(train: Moments, texts: Texts) -> dict[str, RidgePath]:
    """Regressions of the rows outside a fold, by name."""
    first, last = texts.simple.shape[1], len(train.mean) - texts.target.shape[1]
    text, llm, target = slice(0, first), slice(first, last), slice(last, None)
    alone = {"text": [Block(text, 1)], "llm": [Block(llm, 1)]}
    both = {f"both {scale:.2g}": [Block(text, 1), Block(llm, scale)] for scale in LLM_SCALES}
    return {name: ridge_path(train, blocks, target) for name, blocks in {**alone, **both}.items()}


def _chosen(errors: list[dict[str, np.ndarray]], names: list[str]) -> tuple[str, int]:
    """The option and the place of the penalty with the least mean error over folds."""
    means = {name: np.mean([fold[name].mean(1) for fold in errors], 0) for name in names}
    best = min(names, key=lambda name: means[name].min())
    return best, int(means[best].argmin())


def _retrieved(
    predicted: Float[np.ndarray, "n q"], targets: Float[np.ndarray, "n q"], complexes: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """1 where the target of the largest cosine is that of the row's own complex prompt."""
    norms = [np.linalg.norm(each, axis=1, keepdims=True) for each in (predicted, targets)]
    cosines = (predicted / np.maximum(norms[0], 1e-30)) @ (targets / np.maximum(norms[1], 1e-30)).T
    return (complexes[cosines.argmax(1)] == complexes).astype(np.float64)


def _common(wrong: Float[np.ndarray, "n q"], units: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Squared length of the mean error of each row's unit, without bias: e_i . (mean of the unit's other errors).

    Its mean over a unit's rows estimates |E e|^2; zero for a unit of one row, which cannot tell it from noise.
    """
    unique, unit = np.unique(units, return_inverse=True)
    sums = np.zeros((len(unique), wrong.shape[1]))
    np.add.at(sums, unit, wrong)
    others = np.bincount(unit)[unit] - 1
    return (wrong * (sums[unit] - wrong)).sum(1) / np.maximum(others, 1)


def _summarise(
    columns: dict[str, np.ndarray], units: Int[np.ndarray, " judged"], folds: int, words: bool, config: ProbeConfig
) -> Judgement:
    """Sums over units, and the same over resampled units: rows of a unit are not independent."""
    unique, unit = np.unique(units, return_inverse=True)
    rng = np.random.default_rng([config.seed, 5])
    counts = rng.multinomial(len(unique), np.full(len(unique), 1 / len(unique)), size=config.resamples)
    columns = {**columns, "rows": np.ones(len(units))}
    sums = {key: np.bincount(unit, values, len(unique)) for key, values in columns.items()}
    every = {key: np.concatenate([[each.sum()], counts @ each]) for key, each in sums.items()}  # first: as it is

    def r2(kind: str) -> np.ndarray:
        return 1 - every[f"{kind} error"] / every["spread"]

    def with_interval(values: np.ndarray) -> Interval:
        return interval(float(values[0]), values[1:])

    def known(kind: str) -> np.ndarray:
        return 1 - every[f"{kind} common"] / every["text common"]

    gain = r2("both") - r2("text")
    words = words and bool(
        (every["text common"] > 0).all()
    )  # else nothing there is to be known, or too few rows to say
    kinds = ("text", "llm", "both")
    held = Held(
        rows=len(units),
        units=len(unique),
        gallery=len(units) / folds,
        r2={kind: with_interval(r2(kind)) for kind in kinds},
        retrieval={kind: with_interval(every[f"{kind} right"] / every["rows"]) for kind in kinds},
        gain=with_interval(gain),
        known={kind: with_interval(known(kind)) for kind in ("llm", "both")} if words else {},
    )
    return Judgement(held, gain[1:])
