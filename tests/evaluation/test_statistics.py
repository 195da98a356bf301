"""Intervals, paired tests and gaps against other ways to compute them; prompts are what is resampled."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from sur.evaluation import EvaluateConfig
from sur.evaluation.prompts.prompts import Need, Prompt, PromptSet
from sur.evaluation.scoring import summarise_scores
from sur.evaluation.statistics import PERMUTATIONS, closed_gap, mean, resampled, sign_flip_p


class Quality:
    """A scorer whose values the test makes up."""

    name, meaning, top = "quality", "made up", None
    needs: Need = "narrative"

    def __init__(self, higher_is_better: bool = True) -> None:
        self.higher_is_better = higher_is_better


def prompts_of(n: int, with_complex: int) -> PromptSet:
    made = (Prompt(str(i), f"narrative {i}", "8k" if i < with_complex else None, ("ab"[i % 2],)) for i in range(n))
    return PromptSet("made-up", "", tuple(made), {"a": "", "b": ""})


def test_the_interval_of_a_mean_is_scipy_s_bootstrap(rng):
    values = rng.normal(size=60)
    ours = mean(values, resampled(60, 20_000, 0))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    assert ours.value == values.mean()
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert abs(ours.low - theirs.confidence_interval.low) < 0.03 * width
    assert abs(ours.high - theirs.confidence_interval.high) < 0.03 * width


def test_few_prompts_are_tested_with_every_flip_of_signs():
    moved = np.array([0.5, -0.25, 1.0, 0.0, 0.75, 0.1, 0.0])
    signs = np.array(list(product((-1, 1), repeat=5)))
    expected = (np.abs(signs @ moved[moved != 0]) >= moved.sum() - 1e-9).mean()
    assert sign_flip_p(moved, 0) == expected == sign_flip_p(-moved, 1)
    assert sign_flip_p(np.ones(10), 0) == 2 / 2**10
    assert sign_flip_p(np.zeros(10), 0) == 1.0


def test_many_prompts_are_tested_as_scipy_does_and_never_with_p_zero(rng):
    moved = rng.normal(0.2, 1, size=80)
    theirs = stats.permutation_test(
        (moved, np.zeros(80)), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples",
        n_resamples=PERMUTATIONS, vectorized=True, rng=np.random.default_rng(5),
    )  # fmt: skip
    assert abs(sign_flip_p(moved, 0) - theirs.pvalue) < 0.01
    assert sign_flip_p(np.ones(80), 0) == 1 / (1 + PERMUTATIONS)


def test_p_is_uniform_where_there_is_nothing_to_find(rng):
    found = [sign_flip_p(rng.integers(-1, 2, size=14).astype(float), 0) for _ in range(400)]
    assert np.mean(np.array(found) <= 0.05) <= 0.08


def test_a_gap_that_may_be_none_has_no_closed_share(rng):
    narrative, complex_ = rng.random(100), rng.random(100)
    scores = {"narrative": narrative, "adapter": narrative + 0.1, "complex": complex_}
    assert np.isnan(closed_gap(scores, resampled(100, 500, 0)).value)
    clear = closed_gap({**scores, "complex": narrative + 0.4}, resampled(100, 500, 0))
    assert [clear.value, clear.low, clear.high] == pytest.approx([0.25] * 3)


def test_noises_of_a_prompt_do_not_count_as_prompts(rng):
    asked, settings = prompts_of(40, 0), EvaluateConfig(resamples=500)
    base, gain = rng.normal(size=(40, 1)), rng.normal(size=(40, 1))
    intervals = []
    for repeats in (1, 50):  # the same pictures again and again say nothing new
        scores = {"narrative": np.repeat(base, repeats, 1), "adapter": np.repeat(base + gain, repeats, 1)}
        rows, _, (every, *_) = summarise_scores(asked, Quality(), scores, settings)
        intervals.append((every.difference.low, every.difference.high, every.p, rows[0].score.low))
        assert every.wins == (gain > 0).sum() and every.losses == (gain < 0).sum() and rows[0].pictures == 40 * repeats
    assert intervals[0] == pytest.approx(intervals[1])


def test_conditions_are_compared_on_the_same_pictures_only(rng):
    asked, settings = prompts_of(8, 4), EvaluateConfig(resamples=100)
    scores = {c: rng.random((8, 2)) for c in ("narrative", "adapter", "complex")}
    scores["complex"][4:] = np.nan  # there is no such text
    scores["adapter"][0, 0] = np.nan  # one picture without a value
    scores["narrative"][5] = np.nan  # a prompt without any
    rows, (gap, *_), (every, *_) = summarise_scores(asked, Quality(), scores, settings)
    kept = {i: [1] if i == 0 else [0, 1] for i in range(8) if i != 5}
    for row in rows[:3]:
        chosen = [i for i in kept if row.condition != "complex" or i < 4]
        means = [scores[row.condition][i, kept[i]].mean() for i in chosen]
        assert row.score.value == pytest.approx(np.mean(means))
        assert (row.prompts, row.pictures) == (len(chosen), sum(len(kept[i]) for i in chosen))
        assert row.unscored == (1 if row.condition == "complex" else 3)
    single = {c: np.array([scores[c][i, kept[i]].mean() for i in range(4)]) for c in scores}
    assert every.wins + every.losses + every.ties == 7
    assert str(gap.closed) == str(closed_gap(single, resampled(4, 100, 0)))


def test_where_lower_is_better_less_is_a_win(rng):
    asked, settings = prompts_of(30, 30), EvaluateConfig(resamples=100)
    narrative = rng.random((30, 1))
    scores = {"narrative": narrative, "adapter": narrative - 0.3, "complex": narrative - 0.6}
    _, (gap, *_), (every, *_) = summarise_scores(asked, Quality(higher_is_better=False), scores, settings)
    assert (every.wins, every.losses) == (30, 0) and every.difference.value == pytest.approx(-0.3)
    assert gap.closed.value == pytest.approx(0.5)
    _, _, (every, *_) = summarise_scores(asked, Quality(), scores, settings)
    assert (every.wins, every.losses) == (0, 30)
