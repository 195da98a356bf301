"""Statistics of scores: means with bootstrap intervals, a paired test, and the share of a gap that is closed.

Prompts are resampled, never pictures: the pictures of a prompt are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, BeforeValidator

from sur.evaluation.prompts.prompts import Condition

PERMUTATIONS = 20_000
LARGEST_EXACT = 14  # prompts that differ; up to this number all 2^n sign flips are tried
UNSURE = 0.025  # a larger share of resamples without a gap makes its closing meaningless

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # JSON has no NaN


class Interval(BaseModel):
    """An estimate with the 2.5 % and 97.5 % points of its bootstrap over prompts."""

    value: Number
    low: Number
    high: Number

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def resampled(prompts: int, resamples: int, seed: int) -> Int[np.ndarray, "resamples prompts"]:
    """Places of the prompts in each bootstrap sample."""
    return np.random.default_rng(seed).integers(prompts, size=(resamples, prompts))


def mean(values: Float[np.ndarray, " prompts"], draws: Int[np.ndarray, "resamples prompts"]) -> Interval:
    """Mean over prompts, with its interval."""
    return interval(values.mean(), values[draws].mean(1))


def closed_gap(
    scores: Mapping[Condition, Float[np.ndarray, " prompts"]], draws: Int[np.ndarray, "resamples prompts"]
) -> Interval:
    """(adapter - narrative) / (complex - narrative), of scores with higher ones better.

    NaN when the complex prompts are not clearly better: a share of a gap that may be zero means nothing.
    """

    def closed(means: Mapping[Condition, Any]) -> Any:
        gap = means["complex"] - means["narrative"]
        return np.where(gap > 0, (means["adapter"] - means["narrative"]) / np.where(gap > 0, gap, 1), np.nan)

    samples = closed({c: values[draws].mean(1) for c, values in scores.items()})
    if np.isnan(samples).mean() > UNSURE:
        return Interval(value=math.nan, low=math.nan, high=math.nan)
    return interval(float(closed({c: values.mean() for c, values in scores.items()})), samples)


def sign_flip_p(differences: Float[np.ndarray, " prompts"], seed: int) -> float:
    """Two-sided p: the probability of a mean difference at least as large if each prompt's sign were a coin flip.

    Exact where few prompts differ, else from 20,000 random flips, counting the observed signs as one of them (so p is
    never 0; Phipson and Smyth 2010).
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    observed = abs(moved.sum()) * (1 - 1e-12)  # sums in another order round differently
    if len(moved) <= LARGEST_EXACT:
        bits = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs((2 * bits - 1) @ moved) >= observed).mean())
    rng, as_large = np.random.default_rng([seed, 1]), 0
    for size in [1000] * (PERMUTATIONS // 1000):
        as_large += int((np.abs(rng.choice((-1.0, 1.0), (size, len(moved))) @ moved) >= observed).sum())
    return (1 + as_large) / (1 + PERMUTATIONS)


def interval(value: float, samples: Float[np.ndarray, " resamples"]) -> Interval:
    """An estimate with the middle 95 % of its samples."""
    low, high = np.nanquantile(samples, [0.025, 0.975]) if np.isfinite(samples).any() else (np.nan, np.nan)
    return Interval(value=float(value), low=float(low), high=float(high))
