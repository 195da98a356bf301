"""Three hundred everyday prompts: a hundred each of action, colour and counting, always the same ones.

Each is a plain sentence with the complex keyword prompt of the same scene and questions whose answers follow from
how the sentence was made (docs/evaluation.md has the rules). A category is every combination of its words, in an
order drawn once; the first hundred are the set. The words were chosen for this, no prompt is taken from elsewhere.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from sur.evaluation.prompts.prompts import Asked, Prompt, PromptSet

EACH = 100  # prompts of a category
CATEGORIES = {
    "action": "somebody does something",
    "colour": "one thing, or two, of a given colour",
    "counting": "two to five equal things",
}
_KEYWORDS = "photograph, natural light, sharp focus, high detail"

_PEOPLE = ("man", "woman", "boy", "girl")
_ACTIONS = (
    "riding a bicycle", "reading a newspaper", "playing the guitar", "climbing a ladder", "walking a dog",
    "sleeping on a bench", "painting a fence", "throwing a ball", "flying a kite", "eating an apple",
    "washing a car", "feeding ducks", "jumping over a puddle", "drinking coffee", "carrying a suitcase",
    "digging a hole",
)  # fmt: skip
_DEEDS = (
    "all afternoon the {who} next door was {doing}",
    "nobody said a word to the {who} who was {doing}",
    "it had begun to rain, yet the {who} kept on {doing}",
    "when we turned the corner we came upon a {who} {doing}",
    "my aunt likes to tell of the {who} she once saw {doing}",
)

_COLOURS = ("red", "blue", "green", "yellow", "black", "white", "orange", "purple")
_THINGS = ("umbrella", "suitcase", "chair", "bicycle", "vase", "coat", "hat", "bucket", "teapot", "book")
_ONE = (
    "somebody has left {a} behind and nobody wants it back",
    "for her birthday she wished for nothing but {a}",
    "of the whole house i only remember {a}",
)
_TWO = ("next to {a} there was {b}, and that was all they owned", "he took {a} with him and left {b} where it was")

_NUMBERS = {2: ("two", "a pair of"), 3: ("three", "a group of three"), 4: ("four", "two pairs of"), 5: ("five",)}
_WHERE = {
    "outdoors": (
        ("dogs", "horses", "ducks", "bicycles", "sheep", "chairs"),
        ("in the park", "in front of the church", "on the meadow"),
    ),
    "indoors": (
        ("cups", "candles", "apples", "books", "lemons", "cats"),
        ("on the kitchen table", "on the windowsill", "by the stove"),
    ),
}
_COUNTS = (
    "what i remember of that day is that we saw {things} {where}",
    "grandmother counted {things} {where} before she went to bed",
    "in the morning we were surprised to find {things} {where}",
)


def everyday(n: int = 3 * EACH) -> PromptSet:
    """The first `n` prompts of the set, the categories by turns."""
    categories = (_actions(), _colours(), _counting())
    orders = [np.random.default_rng([2305, i]).permutation(len(each)) for i, each in enumerate(categories)]
    prompts = [
        _numbered(each[order[turn]], name, turn)
        for turn in range(EACH)
        for name, each, order in zip(CATEGORIES, categories, orders, strict=True)
    ]
    return PromptSet("everyday", "plain sentences about actions, colours and counts", tuple(prompts[:n]), CATEGORIES)


def _numbered(prompt: tuple[str, str, tuple[Asked, ...]], category: str, number: int) -> Prompt:
    narrative, keywords, asked = prompt
    return Prompt(f"{category}-{number:03d}", narrative, f"{keywords}, {_KEYWORDS}", (category,), asked)


def _actions() -> list[tuple[str, str, tuple[Asked, ...]]]:
    """Every person, action and sentence; one question's answer is yes, that of its twin about another action is no."""
    made = []
    for who, (place, doing), deed in product(_PEOPLE, enumerate(_ACTIONS), _DEEDS):
        other = _ACTIONS[(place + 7) % len(_ACTIONS)]
        asked = (Asked(f"Is the {who} {doing}?", ("yes",)), Asked(f"Is the {who} {other}?", ("no",)))
        made.append((deed.format(who=who, doing=doing), f"{who} {doing}", asked))
    return made


def _colours() -> list[tuple[str, str, tuple[Asked, ...]]]:
    """Every colour, thing and sentence; where there is a second thing, it has another colour."""
    made = []
    pairs = list(product(enumerate(_COLOURS), enumerate(_THINGS)))
    for ((_, colour), (_, thing)), sentence in product(pairs, _ONE):
        made.append((sentence.format(a=_a(colour, thing)), f"{colour} {thing}", (_colour_of(thing, colour),)))
    for ((i, colour), (j, thing)), step, sentence in product(pairs, (1, 3), _TWO):
        second, beside = _COLOURS[(i + step) % len(_COLOURS)], _THINGS[(j + 2 * step) % len(_THINGS)]
        told = sentence.format(a=_a(colour, thing), b=_a(second, beside))
        asked = (_colour_of(thing, colour), _colour_of(beside, second))
        made.append((told, f"{colour} {thing}, {second} {beside}", asked))
    return made


def _counting() -> list[tuple[str, str, tuple[Asked, ...]]]:
    """Every number (2 to 5), word for it, thing, place and sentence."""
    made = []
    for things, places in _WHERE.values():
        for (number, words), thing, where, sentence in product(_NUMBERS.items(), things, places, _COUNTS):
            asked = (Asked(f"How many {thing} are there?", (str(number), words[0])),)
            for word in words:
                told = sentence.format(things=f"{word} {thing}", where=where)
                made.append((told, f"{words[0]} {thing}, {where}", asked))
    return made


def _colour_of(thing: str, colour: str) -> Asked:
    return Asked(f"What color is the {thing}?", (colour,))  # the spelling that VQA models were trained on


def _a(colour: str, thing: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}"
