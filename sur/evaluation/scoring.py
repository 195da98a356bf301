"""From each picture's scores to rows, gaps and comparisons, for all prompts of a set and for each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from sur.config.evaluation import EvaluateConfig
from sur.evaluation.judges.scorer import Scorer
from sur.evaluation.prompts.prompts import CONDITIONS, Condition, Prompt, PromptSet
from sur.evaluation.results import Comparison, Gap, Row
from sur.evaluation.statistics import closed_gap, mean, resampled, sign_flip_p

ALL = "all"


def groups_of(asked: PromptSet) -> Iterator[tuple[str, list[int]]]:
    """Every group of a set that has prompts, and their places; first all of them."""
    yield ALL, list(range(len(asked.prompts)))
    for group in asked.groups:
        if places := [i for i, prompt in enumerate(asked.prompts) if group in prompt.groups]:
            yield group, places


def summarise(
    asked: PromptSet,
    scorer: Scorer,
    scores: Mapping[Condition, Float[np.ndarray, "prompts repeats"]],
    settings: EvaluateConfig,
) -> tuple[list[Row], list[Gap], list[Comparison]]:
    """What one scorer's values (NaN = none) say of a set."""
    counted = paired(asked.prompts, scores)
    wanted = np.array([prompt.has(scorer.needs) for prompt in asked.prompts])
    rows, gaps, comparisons = [], [], []
    for group, places in groups_of(asked):
        member = np.zeros(len(asked.prompts), dtype=bool)
        member[places] = True
        single: dict[Condition, np.ndarray] = {}
        for condition in CONDITIONS:
            if condition not in scores:
                continue
            told = np.array([prompt.text(condition) is not None for prompt in asked.prompts]) & member & wanted
            chosen = told & counted.any(1)
            if not chosen.any():
                continue
            single[condition] = np.where(chosen, _prompt_means(scores[condition], counted), np.nan)
            values = single[condition][chosen]
            kept = int(counted[chosen].sum())
            rows.append(
                Row(
                    set=asked.name, group=group, scorer=scorer.name, condition=condition, prompts=len(values),
                    pictures=kept, unscored=int(told.sum()) * counted.shape[1] - kept,
                    score=mean(values, resampled(len(values), settings.resamples, settings.seed)),
                )
            )  # fmt: skip
        sign = 1.0 if scorer.higher_is_better else -1.0
        names = {"set": asked.name, "group": group, "scorer": scorer.name}
        if "adapter" in single:
            comparisons.append(Comparison(**names, **_compare(single, sign, settings)))
        if "adapter" in single and "complex" in single:
            both = np.isfinite(single["complex"])
            draws = resampled(int(both.sum()), settings.resamples, settings.seed)
            gaps.append(Gap(**names, closed=closed_gap({c: sign * v[both] for c, v in single.items()}, draws)))
    return rows, gaps, comparisons


def paired(
    prompts: Sequence[Prompt], scores: Mapping[Condition, Float[np.ndarray, "prompts repeats"]]
) -> Bool[np.ndarray, "prompts repeats"]:
    """Which repeats of a prompt have a score under every condition that it has a text for."""
    rest = [np.array([prompt.text(c) is None for prompt in prompts])[:, None] for c in scores]
    return np.logical_and.reduce([np.isfinite(v) | none for v, none in zip(scores.values(), rest, strict=True)])


def _prompt_means(
    values: Float[np.ndarray, "prompts repeats"], counted: Bool[np.ndarray, "prompts repeats"]
) -> Float[np.ndarray, " prompts"]:
    """Each prompt's mean over its counted repeats."""
    return np.where(counted, np.nan_to_num(values), 0).sum(1) / np.maximum(counted.sum(1), 1)


def _compare(single: Mapping[Condition, np.ndarray], sign: float, settings: EvaluateConfig) -> dict:
    moved = single["adapter"] - single["narrative"]
    moved = moved[np.isfinite(moved)]
    return {
        "difference": mean(moved, resampled(len(moved), settings.resamples, settings.seed)),
        "wins": int((sign * moved > 0).sum()),
        "losses": int((sign * moved < 0).sum()),
        "ties": int((moved == 0).sum()),
        "p": sign_flip_p(moved, settings.seed),
    }
