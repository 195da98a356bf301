"""Whether a reader sees anything of a text: spaces, marks without a letter and invisible characters are nothing."""

from __future__ import annotations

import unicodedata

# Control, format, unassigned, separators, marks. Private characters and lone surrogates count as seen.
UNSEEN = frozenset({"Cc", "Cf", "Cn", "Zs", "Zl", "Zp", "Mn", "Me", "Mc"})
# Letters and symbols that are blank: fillers of Hangul, the blank of Braille, an object's stand-in.
BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\ufffc")


def is_visible(text: str) -> bool:
    """Whether a reader sees at least one character of a text."""
    return any(char not in BLANK and unicodedata.category(char) not in UNSEEN for char in text)
