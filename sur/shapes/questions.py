"""Questions of the evaluation: scenes with a complex prompt and a narrative one that was never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sur.shapes.prompts import DEV, HELD_OUT, TRAIN, complex_prompt, narrative_prompt
from sur.shapes.scenes import Scene, sample_scene
from sur.shapes.words import PAIRED_KINDS

SetName = Literal["templates", "synonyms", "dev_templates", "dev_synonyms"]

# Meanings for readers of results, in the order of reports.
SET_MEANINGS = {
    "templates": "sentence patterns that no training had, in words that the adapter was trained on",
    "synonyms": "sentences as in training, one word of each in none of the adapter's prompt pairs",
    "dev_templates": "like templates, with other sentences, for choosing settings",
    "dev_synonyms": "like synonyms, with other words, for choosing settings",
}
QUESTION_GROUPS = {
    "count": "one to four equal things",
    "relation": "two things, one above or left of the other",
    "text encoder knows the word": "the new word was in the text encoder's own training",
    "only the LLM knows the word": "the text encoder never saw the new word: its meaning can come from the LLM alone",
}


@dataclass(frozen=True)
class Question:
    """One scene to be drawn. `groups`: `count` or `relation`, for synonyms also who knows the new word."""

    scene: Scene
    complex: str
    narrative: str
    groups: tuple[str, ...]


def questions(name: SetName, n: int, seed: int = 0) -> list[Question]:
    """`n` questions of a set, a pure function of the arguments.

    templates: sentences never trained on, in words of paired rows. synonyms: sentences of the training with one
    word (a colour, shape, count or relation) that no paired row has; half of these words are known to the text
    encoder, half only to the LLM. The dev sets are similar, with other sentences and words, for choosing settings.
    """
    rng = np.random.default_rng([seed, list(_SETS).index(name)])
    pieces, unseen = _SETS[name]
    chosen = []
    for i in range(n):
        scene = sample_scene(rng)
        kind = unseen[i % len(unseen)] if unseen else None
        narrative = narrative_prompt(scene, rng, pieces, PAIRED_KINDS, require=kind)
        groups = (scene.kind,) if kind is None else (scene.kind, _KNOWN_TO[kind])
        chosen.append(Question(scene, complex_prompt(scene, rng), narrative.text, groups))
    return chosen


_SETS = {
    "templates": (HELD_OUT, ()),
    "synonyms": (TRAIN, ("unseen_known", "unseen_rare")),
    "dev_templates": (DEV, ()),
    "dev_synonyms": (TRAIN, ("dev_rare",)),
}
_KNOWN_TO = {
    "unseen_known": "text encoder knows the word",
    "unseen_rare": "only the LLM knows the word",
    "dev_rare": "only the LLM knows the word",
}
