"""The words of a prompt: all of them, those that carry its content, and the share of these that another text has."""

from __future__ import annotations

import re
from collections import Counter

# A run of letters or digits, or one character of a script that writes no spaces between words.
_WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿가-힯]|[^\W_぀-ヿ㐀-鿿豈-﫿가-힯]+(?:['’][^\W\d_]+)?")
_ARTICLES_AND_THE_LIKE = """
a an the and or but nor so of in on at to by for from with without into onto over under as than then that this these
those there here it its he she his her they them their we our you your i my me is are was were be been being am has have
had do does did can could will would shall should may might must not no very some any each all both more most such which
who whom whose what when where while how if because up down out off again also just only other another same own
image picture photo photograph prompt
"""
# Words of the trade: they say how a picture looks, not what is in it.
_OF_THE_TRADE = """
masterpiece best high highest quality ultra uhd hd hdr fhd 2k 4k 8k 16k highres absurdres detailed detail details highly
intricate hyperdetailed sharp focus photorealistic hyperrealistic realistic realism cinematic octane render rendered
rendering unreal engine raytracing artstation deviantart pixiv trending award winning dslr resolution professional
stunning beautiful aesthetic concept art artwork digital illustration style by
"""
_EMPTY = frozenset((_ARTICLES_AND_THE_LIKE + _OF_THE_TRADE).split())
_NAMES_OF_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {str(number): name for number, name in enumerate(_NAMES_OF_NUMBERS.split())}
_ENDINGS = ("ing", "ies", "ed", "es", "s", "e", "y")
SHORTEST_STEM = 3  # letters


def words(text: str) -> list[str]:
    """The words of a text, folded to lower case; one for each character of scripts that write no spaces."""
    return _WORD.findall(text.casefold())


def content(text: str) -> set[str]:
    """Stems of the words that say what is in a picture: no articles and the like, no words of the trade."""
    return {_stem(word) for word in words(text) if word not in _EMPTY}


def shared_content(text: str, other: str) -> float:
    """Share of a text's content words that the other text has; 1 for a text without content words."""
    needed = content(text)
    present = {_stem(word) for word in words(other)}
    return len(needed & present) / len(needed) if needed else 1.0


def repeated_share(text: str) -> float:
    """Share of a text's runs of three words that occurred before in it; 0 for fewer than three words."""
    sequence = words(text)
    triples = Counter(zip(sequence, sequence[1:], sequence[2:], strict=False))
    count = sum(triples.values())
    return (count - len(triples)) / count if count else 0.0


def _stem(word: str) -> str:
    """A word without a common English ending: riding, rides and ride are one."""
    word = _NUMBERS.get(word, word).removesuffix("'s").removesuffix("’s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
            return word.removesuffix(ending)
    return word
