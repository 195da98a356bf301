"""Prompts of the shapes world: the complex keyword prompt of a scene and its many narrative phrasings.

A narrative is a core sentence about the scene, often with clauses before and after it that say nothing about it.
The pieces are split once: `TRAIN` pieces appear in the text encoder's and in the adapter's training, `HELD_OUT`
pieces (no conjunction, subject, action or core in common) only in the evaluation on unseen templates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sur.shapes.scenes import Scene, Thing
from sur.shapes.words import COLOUR_WORDS, COUNT_WORDS, PAIRED_KINDS, RELATION_WORDS, SHAPE_WORDS, STYLE, Words


@dataclass(frozen=True)
class Pieces:
    """What a narrative is made of: opening clause, core ("... {it}"), closing clause.

    An opening or closing clause is empty, or conjunction + subject + action ("while the rain taps on the window").
    """

    conjunctions: tuple[str, ...]
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    cores: tuple[str, ...]

    def clause(self, rng: np.random.Generator) -> str:
        """One clause that says nothing about the scene."""
        return " ".join(group[rng.integers(len(group))] for group in (self.conjunctions, self.subjects, self.actions))

    def tell(self, it: str, rng: np.random.Generator) -> str:
        """A sentence around the noun phrase `it`; two of three have an opening, two of three a closing."""
        sentence = self.cores[rng.integers(len(self.cores))].format(it=it)
        if rng.random() < 2 / 3:
            sentence = f"{self.clause(rng)}, {sentence}"
        if rng.random() < 2 / 3:
            sentence = f"{sentence} {self.clause(rng)}"
        return sentence


TRAIN = Pieces(
    conjunctions=("while", "as", "because", "before", "after", "although", "once"),
    subjects=(
        "the rain", "my sister", "the teacher", "a quiet dog", "the kettle", "an old friend", "the train",
        "nobody", "the whole family", "the music", "a small bird", "the baker", "the night", "her phone",
        "the river", "the game", "every visitor", "the clock",
    ),
    actions=(
        "taps on the window", "comes home late", "waits for the bus", "sleeps on the sofa", "starts again",
        "has nothing to say", "fills the garden", "is far away", "looks at the sea", "stops for a moment",
        "likes the idea", "moves slowly", "makes the room feel warm", "wants a cup of tea", "forgets the time",
        "walks along the road", "keeps its secret", "needs a rest",
    ),
    cores=(
        "my brother has drawn {it}", "we can see {it}", "there is a picture of {it}", "a child carefully paints {it}",
        "somebody has left us {it}", "the poster shows nothing but {it}", "the screen lights up with {it}",
        "an artist wants to sketch {it}", "you notice {it}", "he cuts {it} out of paper", "the new sign is simply {it}",
        "she dreams about {it}", "they have printed {it} on the card", "i keep looking at {it}", "{it} can be seen",
        "what she asked for is {it}", "the window shows {it}", "please imagine {it}", "{it} is all there is",
        "the story begins with {it}",
    ),
)  # fmt: skip

HELD_OUT = Pieces(
    conjunctions=("when", "since", "until", "long before", "just as"),
    subjects=("the last guest", "grandfather", "winter", "our neighbour", "a stranger", "the lamp", "the kitchen cat"),
    actions=(
        "has gone to bed", "smiles about it", "runs out of paint", "rides a slow bus", "opens the wrong letter",
        "leaves the house empty", "sings under the stairs",
    ),
    cores=(
        "the page was filled with {it}", "the label carries {it}", "{it} appeared on the wall", "they remember {it}",
        "someone points out {it}", "the class was surprised to find {it}", "his birthday cake is decorated with {it}",
    ),
)  # fmt: skip

# For choosing settings; never trained on, never reported.
DEV = Pieces(
    conjunctions=("whenever", "if", "so that", "even though"),
    subjects=("the farmer", "our bus driver", "summer", "a curious cat", "the neighbour's radio"),
    actions=("laughs about it", "crosses the bridge", "runs out of milk", "hides behind a tree", "reads a newspaper"),
    cores=(
        "the wallpaper has {it}", "a tourist photographs {it}", "{it} was all over the news", "we were promised {it}",
        "the artist finally sold {it}",
    ),
)  # fmt: skip

_COUNT_KEYWORDS = {1: "one", 2: "two", 3: "three", 4: "four"}


def complex_prompt(scene: Scene, rng: np.random.Generator) -> str:
    """The keyword prompt that the denoiser understands, e.g. "8k, three red circles, crisp edges"."""
    if scene.second is None:
        noun = scene.first.shape if scene.count == 1 else plural(scene.first.shape)
        subject = f"{_COUNT_KEYWORDS[scene.count]} {scene.first.colour} {noun}"
    else:
        first, second = scene.first, scene.second
        subject = f"{first.colour} {first.shape} {scene.relation} {second.colour} {second.shape}"
    keywords = [STYLE[i] for i in rng.permutation(len(STYLE))[: rng.integers(1, 4)]]
    keywords.insert(rng.integers(len(keywords) + 1), subject)
    return ", ".join(keywords)


@dataclass(frozen=True)
class Narrative:
    """A narrative prompt and the kind of words it uses: every kind of `KINDS` that occurs in it."""

    text: str
    kinds: frozenset[str]


def narrative_prompt(
    scene: Scene,
    rng: np.random.Generator,
    pieces: Pieces = TRAIN,
    kinds: tuple[str, ...] = PAIRED_KINDS,
    require: str | None = None,
) -> Narrative:
    """Tell `scene` as a person would, each word's kind drawn from `kinds`.

    `require` names a kind of which at least one word must occur: one idea, drawn at random, takes it,
    the others are drawn from `kinds`.
    """
    slots = (
        ("count", "colour", "shape") if scene.second is None else ("colour", "shape", "colour2", "shape2", "relation")
    )
    forced = slots[rng.integers(len(slots))] if require else None
    used: set[str] = set()

    def pick(slot: str, words: Words) -> str:
        kind = require if slot == forced and require else kinds[rng.integers(len(kinds))]
        used.add(kind)
        options = words.of((kind,))
        return options[rng.integers(len(options))]

    if scene.second is None:
        colour, shape = (
            pick("colour", COLOUR_WORDS[scene.first.colour]),
            pick("shape", SHAPE_WORDS[scene.first.shape]),
        )
        it = f"{pick('count', COUNT_WORDS[scene.count])} {colour} {shape if scene.count == 1 else plural(shape)}"
    else:
        converse = bool(rng.integers(2))
        first, second = _thing(scene.first, pick, ""), _thing(scene.second, pick, "2")
        relation = pick("relation", RELATION_WORDS[scene.relation or ""][converse])
        it = f"{first} with {second} {relation} it" if converse else f"{first} {relation} {second}"
    return Narrative(pieces.tell(it, rng), frozenset(used))


def plural(noun: str) -> str:
    """English plural of a shape's name."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def _thing(thing: Thing, pick, suffix: str) -> str:
    noun = f"{pick('colour' + suffix, COLOUR_WORDS[thing.colour])} {pick('shape' + suffix, SHAPE_WORDS[thing.shape])}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
