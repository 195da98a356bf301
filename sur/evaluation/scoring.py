"""From each picture's scores to rows, gaps and comparisons, for all prompts of a set and for each group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from sur.config.evaluation import EvaluateConfig
from sur.evaluation.judges.scorer import Scorer
from sur.evaluation.prompts.prompts import CONDITIONS, Condition, Prompt, PromptSet
from sur.evaluation.results import Comparison, Gap, ScoreRow
from sur.evaluation.statistics import closed_gap, mean, resampled, sign_flip_p

ALL = "all"


def prompts_by_group(prompt_set: PromptSet) -> Iterator[tuple[str, list[int]]]:
    """Every group of a set that has prompts, with the places of the prompts; first the group of all prompts."""
    yield ALL, list(range(len(prompt_set.prompts)))
    for group in prompt_set.groups:
        if places := [i for i, prompt in enumerate(prompt_set.prompts) if group in prompt.groups]:
            yield group, places


def summarise_scores(
    prompt_set: PromptSet,
    scorer: Scorer,
    scores: Mapping[Condition, Float[np.ndarray, "prompts repeats"]],
    settings: EvaluateConfig,
) -> tuple[list[ScoreRow], list[Gap], list[Comparison]]:
    """Rows, gaps and comparisons of one scorer's values (NaN where it has none) on a set."""
    counted = paired(prompt_set.prompts, scores)
    judged = np.array([prompt.has(scorer.needs) for prompt in prompt_set.prompts])
    rows, gaps, comparisons = [], [], []
    for group, places in prompts_by_group(prompt_set):
        member = np.zeros(len(prompt_set.prompts), dtype=bool)
        member[places] = True
        single: dict[Condition, np.ndarray] = {}
        for condition in CONDITIONS:
            if condition not in scores:
                continue
            drawn = np.array([prompt.text(condition) is not None for prompt in prompt_set.prompts]) & member & judged
            chosen = drawn & counted.any(1)
            if not chosen.any():
                continue
            single[condition] = np.where(chosen, _prompt_means(scores[condition], counted), np.nan)
            values = single[condition][chosen]
            pictures = int(counted[chosen].sum())
            rows.append(
                ScoreRow(
                    set=prompt_set.name, group=group, scorer=scorer.name, condition=condition, prompts=len(values),
                    pictures=pictures, unscored=int(drawn.sum()) * counted.shape[1] - pictures,
                    score=mean(values, resampled(len(values), settings.resamples, settings.seed)),
                )
            )  # fmt: skip
        sign = 1.0 if scorer.higher_is_better else -1.0
        names = {"set": prompt_set.name, "group": group, "scorer": scorer.name}
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
    """Whether each repeat of a prompt has a score under every condition that the prompt has a text for."""
    textless = [np.array([prompt.text(c) is None for prompt in prompts])[:, None] for c in scores]
    return np.logical_and.reduce([np.isfinite(v) | none for v, none in zip(scores.values(), textless, strict=True)])


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
