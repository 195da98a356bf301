"""Folds of held-back rows, in two splits: rows like those that were fitted, and rows with words of no fitted row.

Rows of equal simple or of equal complex prompts form a group, and a group is never on both sides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sur.config.probe import ProbeConfig

MOST_HIDDEN = 0.5  # share of the rows that a fold may hide


@dataclass(frozen=True)
class Fold:
    """One part of the rows that is held back.

    hidden: rows that a fit must not see. judged: places of the hidden rows on which the fit is scored. unit: number
    of each judged row's group or held-back word, which is resampled as a whole.
    """

    hidden: Bool[np.ndarray, " rows"]
    judged: Int[np.ndarray, " judged"]
    unit: Int[np.ndarray, " judged"]


def prompt_groups(simple: Sequence[str], complex: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """Number of each row's group; an equal simple prompt, or an equal complex one, puts two rows into one group."""
    rows = np.arange(len(simple))
    keys = [numbered(simple), numbered(complex)]
    keys[1] += keys[0].max(initial=-1) + 1
    size = len(rows) + keys[1].max(initial=-1) + 1
    edges = (np.ones(2 * len(rows), dtype=bool), (np.tile(rows, 2), np.concatenate(keys) + len(rows)))
    _, labels = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    return labels[: len(rows)].astype(np.int64)


def numbered(texts: Sequence[str]) -> Int[np.ndarray, " rows"]:
    """A number for each text, the same for equal texts."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)


def folds_by_rows(groups: Int[np.ndarray, " rows"], config: ProbeConfig) -> list[Fold]:
    """Folds of whole groups, which are dealt to them at random."""
    rng = np.random.default_rng([config.seed, 1])
    unique, group = np.unique(groups, return_inverse=True)
    fold_of = rng.permutation(len(unique)) % config.folds
    return [_fold(fold_of[group] == number, groups, rng, config) for number in range(config.folds)]


def folds_by_words(simple: Sequence[str], groups: Int[np.ndarray, " rows"], config: ProbeConfig) -> list[Fold]:
    """Folds of rare words, which are dealt to them at random; a fold hides every row with one of its words.

    The row's group is hidden with it. A fold takes words until it has `held_share` of the rows. The list is empty when
    there are fewer than two words a fold, or when groups tie so many words together that a fold would hide more than
    half of the rows.
    """
    rng = np.random.default_rng([config.seed, 2])
    words = [set(re.findall(r"\w+", text.lower())) for text in simple]
    counts = Counter(word for row_words in words for word in row_words)
    limit = max(2, int(config.rare_share * len(simple)))
    rare = sorted(word for word, count in counts.items() if count <= limit)
    rows_of: dict[str, list[int]] = {word: [] for word in rare}
    for row, row_words in enumerate(words):
        for word in row_words & rows_of.keys():
            rows_of[word].append(row)
    dealt: list[list[int]] = [[] for _ in range(config.folds)]
    with_word = np.zeros((config.folds, len(simple)), dtype=bool)
    for place, number in enumerate(rng.permutation(len(rare)).tolist()):
        fold = place % config.folds
        word_rows = rows_of[rare[number]]
        if with_word[fold].sum() + len(word_rows) <= config.held_share * len(simple):
            dealt[fold].append(number)
            with_word[fold, word_rows] = True
    if min(map(len, dealt)) < 2:
        return []
    folds = []
    for fold, numbers in enumerate(dealt):
        unit = np.full(len(simple), -1, dtype=np.int64)
        for number in sorted(numbers, key=lambda n: -counts[rare[n]]):  # the rarest of a row's words is its unit
            unit[rows_of[rare[number]]] = number
        hidden = np.isin(groups, groups[with_word[fold]])
        if hidden.mean() > MOST_HIDDEN:
            return []
        folds.append(_fold(hidden, unit, rng, config, with_word[fold]))
    return folds


def _fold(
    hidden: Bool[np.ndarray, " rows"],
    unit: Int[np.ndarray, " rows"],
    rng: np.random.Generator,
    config: ProbeConfig,
    with_word: Bool[np.ndarray, " rows"] | None = None,
) -> Fold:
    """A fold that is scored on some of the rows that it holds back, drawn at random."""
    rows = np.flatnonzero(hidden if with_word is None else with_word)
    judged = np.sort(rng.permutation(rows)[: config.held_rows])
    return Fold(hidden, judged, unit[judged])
