"""Three hundred everyday prompts: a hundred each of action, colour and counting, always the same ones.

Each prompt is a plain sentence with the complex keyword prompt of the same scene, and questions whose answers follow
from the words of the sentence (docs/evaluation.md has the rules). A category has every combination of its words, in
an order drawn once; the set has the first hundred. The words were chosen for this set; no prompt is copied.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from sur.evaluation.prompts.prompts import PictureQuestion, Prompt, PromptSet

PROMPTS_PER_CATEGORY = 100
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


def everyday(n: int = 3 * PROMPTS_PER_CATEGORY) -> PromptSet:
    """The first `n` prompts of the set, one of each category in turn."""
    categories = (_actions(), _colours(), _counting())
    orders = [np.random.default_rng([2305, i]).permutation(len(prompts)) for i, prompts in enumerate(categories)]
    chosen = [
        _numbered(prompts[order[turn]], name, turn)
        for turn in range(PROMPTS_PER_CATEGORY)
        for name, prompts, order in zip(CATEGORIES, categories, orders, strict=True)
    ]
    return PromptSet("everyday", "plain sentences about actions, colours and counts", tuple(chosen[:n]), CATEGORIES)


def _numbered(prompt: tuple[str, str, tuple[PictureQuestion, ...]], category: str, number: int) -> Prompt:
    narrative, keywords, questions = prompt
    return Prompt(f"{category}-{number:03d}", narrative, f"{keywords}, {_KEYWORDS}", (category,), questions)


def _actions() -> list[tuple[str, str, tuple[PictureQuestion, ...]]]:
    """Every person, action and sentence; a question about the action (yes), and one about another action (no)."""
    prompts = []
    for who, (place, doing), deed in product(_PEOPLE, enumerate(_ACTIONS), _DEEDS):
        other = _ACTIONS[(place + 7) % len(_ACTIONS)]
        questions = (_question(f"Is the {who} {doing}?", "yes"), _question(f"Is the {who} {other}?", "no"))
        prompts.append((deed.format(who=who, doing=doing), f"{who} {doing}", questions))
    return prompts


def _colours() -> list[tuple[str, str, tuple[PictureQuestion, ...]]]:
    """Every colour, thing and sentence; where there is a second thing, it has another colour."""
    prompts = []
    pairs = list(product(enumerate(_COLOURS), enumerate(_THINGS)))
    for ((_, colour), (_, thing)), sentence in product(pairs, _ONE):
        prompts.append((sentence.format(a=_a(colour, thing)), f"{colour} {thing}", (_colour_of(thing, colour),)))
    for ((i, colour), (j, thing)), step, sentence in product(pairs, (1, 3), _TWO):
        second, beside = _COLOURS[(i + step) % len(_COLOURS)], _THINGS[(j + 2 * step) % len(_THINGS)]
        narrative = sentence.format(a=_a(colour, thing), b=_a(second, beside))
        questions = (_colour_of(thing, colour), _colour_of(beside, second))
        prompts.append((narrative, f"{colour} {thing}, {second} {beside}", questions))
    return prompts


def _counting() -> list[tuple[str, str, tuple[PictureQuestion, ...]]]:
    """Every number (2 to 5), word for it, thing, place and sentence."""
    prompts = []
    for things, places in _WHERE.values():
        for (number, words), thing, where, sentence in product(_NUMBERS.items(), things, places, _COUNTS):
            questions = (_question(f"How many {thing} are there?", str(number), words[0]),)
            for word in words:
                narrative = sentence.format(things=f"{word} {thing}", where=where)
                prompts.append((narrative, f"{words[0]} {thing}, {where}", questions))
    return prompts


def _colour_of(thing: str, colour: str) -> PictureQuestion:
    return _question(f"What color is the {thing}?", colour)  # the spelling that VQA models were trained on


def _question(question: str, *answers: str) -> PictureQuestion:
    return PictureQuestion(question, answers)


def _a(colour: str, thing: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}"
