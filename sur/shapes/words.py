"""The words of the shapes world, by who knows them.

Every idea (a colour, a shape, a count, a relation) has words of six kinds:

| kind | text encoder's training | paired rows (adapter's training) | evaluation |
|---|---|---|---|
| `common` | yes | yes | templates |
| `rare` | no | yes | templates |
| `wide` | no, not even as tokens | yes | none: they make the vocabulary of paired rows wide |
| `unseen_known` | yes | no | synonyms |
| `dev_rare` | no | no (unpaired narrative prompts only) | none: settings are chosen with them |
| `unseen_rare` | no | no (unpaired narrative prompts only) | synonyms |

So what an `unseen_rare` word means can be learnt from nowhere but the LLM.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Words for one idea, by who knows them (see the module's table)."""

    common: tuple[str, ...]
    rare: tuple[str, ...]
    unseen_known: tuple[str, ...]
    dev_rare: tuple[str, ...]
    unseen_rare: tuple[str, ...]
    wide: tuple[str, ...]

    def of(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """All words of the given kinds, in order."""
        return tuple(word for kind in kinds for word in getattr(self, kind))


KINDS = ("common", "rare", "unseen_known", "dev_rare", "unseen_rare")
# What a word's kind is drawn from: in questions three of four words are everyday ones, in paired rows half of them.
ASKED_KINDS = ("common", "common", "common", "rare")
PAIRED_KINDS = ("common", "common", "rare", "wide")
# One word of these kinds in every unpaired prompt, the others as in questions: a teacher that has to guess several
# words of a prompt at once is seldom right.
UNPAIRED_KINDS = ("unseen_known", "dev_rare", "unseen_rare")

COLOUR_WORDS = {
    "red": Words(
        ("red", "crimson", "rosy"),
        ("scarlet", "garnet", "tomato"),
        ("cherry",),
        ("vermilion",),
        ("ruby",),
        ("strawberry", "raspberry", "brick", "poppy"),
    ),
    "orange": Words(
        ("orange", "tangerine", "peach"),
        ("pumpkin", "clementine", "copper"),
        ("apricot",),
        ("carrot",),
        ("marmalade",),
        ("mango", "amber", "papaya", "persimmon"),
    ),
    "yellow": Words(
        ("yellow", "golden", "sunny"),
        ("canary", "daffodil", "banana"),
        ("lemon",),
        ("mustard",),
        ("buttercup",),
        ("corn", "sunflower", "honey", "straw"),
    ),
    "green": Words(
        ("green", "emerald", "olive"),
        ("mossy", "avocado", "fern"),
        ("jade",),
        ("grassy",),
        ("lime",),
        ("mint", "spinach", "clover", "cucumber"),
    ),
    "blue": Words(
        ("blue", "azure", "ocean"),
        ("sapphire", "cerulean", "denim"),
        ("navy",),
        ("cobalt",),
        ("indigo",),
        ("sky", "aqua", "cornflower", "royal"),
    ),
    "purple": Words(
        ("purple", "violet", "mauve"),
        ("lavender", "eggplant", "orchid"),
        ("plum",),
        ("amethyst",),
        ("lilac",),
        ("grape", "mulberry", "heather", "aubergine"),
    ),
    "white": Words(
        ("white", "snowy", "bleached"),
        ("ivory", "porcelain", "frosty"),
        ("pearl",),
        ("chalky",),
        ("milky",),
        ("cotton", "alabaster", "eggshell", "cloud"),
    ),
}

# Singular.
SHAPE_WORDS = {
    "circle": Words(
        ("circle", "disc", "wheel"),
        ("dot", "coin", "button"),
        ("ball",),
        ("orb",),
        ("sphere",),
        ("plate", "globe", "hoop", "pellet"),
    ),
    "square": Words(
        ("square", "box", "panel"),
        ("tile", "pane", "crate"),
        ("block",),
        ("cube",),
        ("quadrangle",),
        ("stamp", "carton", "checker", "tablet"),
    ),
    "triangle": Words(
        ("triangle", "wedge", "tepee"),
        ("pyramid", "gable", "spike"),
        ("arrowhead",),
        ("trilateral",),
        ("cone",),
        ("delta", "tent", "pennant", "roof"),
    ),
    "cross": Words(
        ("cross shape", "plus sign", "cross"),
        ("crucifix", "positive sign", "intersection"),
        ("plus mark",),
        ("addition symbol",),
        ("crossroad",),
        ("crossing", "plus symbol", "hospital emblem", "christian emblem"),
    ),
}

# Before a noun: singular for 1, else plural.
COUNT_WORDS = {
    1: Words(
        ("one", "a single", "just one"), ("a lone", "a sole", "no more than one"), ("only one",), ("a solitary",),
        ("an individual",), ("but one", "the only", "a unique", "exactly one"),
    ),
    2: Words(
        ("two", "a pair of", "both"), ("a couple of", "dual", "a twosome of"), ("a duo of",), ("twin",),
        ("a brace of",), ("a dyad of", "a couplet of", "two whole", "a double lot of"),
    ),
    3: Words(
        ("three", "a trio of", "exactly three"), ("a threesome of", "triple", "a troika of"), ("a triplet of",),
        ("a triad of",), ("two plus one",), ("a trinity of", "a tercet of", "three whole", "a triple lot of"),
    ),
    4: Words(
        ("four", "a quartet of", "exactly four"), ("a foursome of", "quadruple", "double two"), ("two pairs of",),
        ("a tetrad of",), ("twice two",), ("a quad of", "a quadruplet of", "four whole", "a fourfold lot of"),
    ),
}  # fmt: skip

# (words, converse ones): "A word B", or "A with B word it", for a scene in which A relation B.
RELATION_WORDS = {
    "above": (
        Words(
            ("above", "over", "up above"), ("atop", "high above", "on the upper side of"), ("higher than",),
            ("overhead of",), ("on top of",), ("directly above", "just over", "in the air over", "perched on"),
        ),
        Words(
            ("below", "under", "down below"), ("beneath", "far below", "on the lower side of"), ("lower than",),
            ("underneath",), ("at the foot of",), ("directly under", "just below", "deep below", "in the depths under"),
        ),
    ),
    "left of": (
        Words(
            ("left of", "to the left of", "on the left of"),
            ("leftward of", "at the left hand of", "to the far left of"), ("on the left side of",), ("west of",),
            ("to the west of",), ("just left of", "directly left of", "far left of", "further left than"),
        ),
        Words(
            ("right of", "to the right of", "on the right of"),
            ("rightward of", "at the right hand of", "to the far right of"), ("on the right side of",), ("east of",),
            ("to the east of",), ("just right of", "directly right of", "far right of", "further right than"),
        ),
    ),
}  # fmt: skip

# Style keywords of complex prompts; they ask for nothing.
STYLE = (
    "flat vector art", "crisp edges", "8k", "masterpiece", "studio background", "clean lines",
    "minimalist", "high detail", "sharp focus", "trending design",
)  # fmt: skip
