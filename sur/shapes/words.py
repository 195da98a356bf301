"""The words of the shapes world, by the models that know them.

Every idea (a colour, a shape, a count, a relation) has words of five kinds:

| kind | text encoder's training | paired rows (adapter's training) | evaluation |
|---|---|---|---|
| `common` | yes | yes | templates |
| `rare` | no | yes | templates |
| `unseen_known` | yes | no | synonyms |
| `dev_rare` | no | no (unpaired narrative prompts only) | none: settings are chosen with them |
| `unseen_rare` | no | no (unpaired narrative prompts only) | synonyms |

So the meaning of an `unseen_rare` word can be learnt only from the LLM.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Words for one idea, by the models that know them (see the module's table)."""

    common: tuple[str, ...]
    rare: tuple[str, ...]
    unseen_known: tuple[str, ...]
    dev_rare: tuple[str, ...]
    unseen_rare: tuple[str, ...]

    def of(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """All words of the given kinds, in order."""
        return tuple(word for kind in kinds for word in getattr(self, kind))


KINDS = ("common", "rare", "unseen_known", "dev_rare", "unseen_rare")
# A word's kind is drawn from these: in paired rows and questions three of four words are common ones.
PAIRED_KINDS = ("common", "common", "common", "rare")
# Every unpaired prompt has one word of these kinds, the others as in paired rows: a teacher that has to guess several
# words of a prompt at once is seldom right.
UNPAIRED_KINDS = ("unseen_known", "dev_rare", "unseen_rare")

COLOUR_WORDS = {
    "red": Words(("red", "crimson", "rosy"), ("scarlet", "garnet", "tomato"), ("cherry",), ("vermilion",), ("ruby",)),
    "orange": Words(
        ("orange", "tangerine", "peach"), ("pumpkin", "clementine", "copper"), ("apricot",), ("carrot",), ("marmalade",)
    ),
    "yellow": Words(
        ("yellow", "golden", "sunny"), ("canary", "daffodil", "banana"), ("lemon",), ("mustard",), ("buttercup",)
    ),
    "green": Words(("green", "emerald", "olive"), ("mossy", "avocado", "fern"), ("jade",), ("grassy",), ("lime",)),
    "blue": Words(("blue", "azure", "ocean"), ("sapphire", "cerulean", "denim"), ("navy",), ("cobalt",), ("indigo",)),
    "purple": Words(
        ("purple", "violet", "mauve"), ("lavender", "eggplant", "orchid"), ("plum",), ("amethyst",), ("lilac",)
    ),
    "white": Words(
        ("white", "snowy", "bleached"), ("ivory", "porcelain", "frosty"), ("pearl",), ("chalky",), ("milky",)
    ),
}

# Singular.
SHAPE_WORDS = {
    "circle": Words(("circle", "disc", "wheel"), ("dot", "coin", "button"), ("ball",), ("orb",), ("sphere",)),
    "square": Words(("square", "box", "panel"), ("tile", "pane", "crate"), ("block",), ("cube",), ("quadrangle",)),
    "triangle": Words(
        ("triangle", "wedge", "tepee"), ("pyramid", "gable", "spike"), ("arrowhead",), ("trilateral",), ("cone",)
    ),
    "cross": Words(
        ("cross shape", "plus sign", "cross"),
        ("crucifix", "positive sign", "intersection"),
        ("plus mark",),
        ("addition symbol",),
        ("crossroad",),
    ),
}

# The noun behind them is singular for 1, else plural.
COUNT_WORDS = {
    1: Words(
        ("one", "a single", "just one"), ("a lone", "a sole", "no more than one"), ("only one",), ("a solitary",),
        ("an individual",),
    ),
    2: Words(
        ("two", "a pair of", "both"), ("a couple of", "dual", "a twosome of"), ("a duo of",), ("twin",), ("a brace of",)
    ),
    3: Words(
        ("three", "a trio of", "exactly three"), ("a threesome of", "triple", "a troika of"), ("a triplet of",),
        ("a triad of",), ("two plus one",),
    ),
    4: Words(
        ("four", "a quartet of", "exactly four"), ("a foursome of", "quadruple", "double two"), ("two pairs of",),
        ("a tetrad of",), ("twice two",),
    ),
}  # fmt: skip

# (words, converse ones): "A word B", or "A with B word it", for a scene in which A relation B.
RELATION_WORDS = {
    "above": (
        Words(
            ("above", "over", "up above"), ("atop", "high above", "on the upper side of"), ("higher than",),
            ("overhead of",), ("on top of",),
        ),
        Words(
            ("below", "under", "down below"), ("beneath", "far below", "on the lower side of"), ("lower than",),
            ("underneath",), ("at the foot of",),
        ),
    ),
    "left of": (
        Words(
            ("left of", "to the left of", "on the left of"),
            ("leftward of", "at the left hand of", "to the far left of"), ("on the left side of",), ("west of",),
            ("to the west of",),
        ),
        Words(
            ("right of", "to the right of", "on the right of"),
            ("rightward of", "at the right hand of", "to the far right of"), ("on the right side of",), ("east of",),
            ("to the east of",),
        ),
    ),
}  # fmt: skip

# Style keywords of complex prompts; they change nothing in a scene.
STYLE = (
    "flat vector art", "crisp edges", "8k", "masterpiece", "studio background", "clean lines",
    "minimalist", "high detail", "sharp focus", "trending design",
)  # fmt: skip
