"""Prompts beside each other: which words each of them has alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """A stretch of a prompt; `own`: words that no other prompt has."""

    text: str
    own: bool


def marked(prompts: Sequence[str]) -> list[list[Piece]]:
    """Each prompt in pieces. Words are compared without regard to case."""
    held = Counter(word for prompt in prompts for word in set(_words(prompt)))
    shared = {word for word, prompts_with_it in held.items() if prompts_with_it > 1}
    return [_pieces(prompt, shared) for prompt in prompts]


def _pieces(prompt: str, shared: set[str]) -> list[Piece]:
    pieces: list[Piece] = []
    for text in re.findall(r"\w+|\W+", prompt):
        own = bool(_words(text)) and text.lower() not in shared
        if pieces and not _words(text):
            own = pieces[-1].own and text.isspace()
        if pieces and pieces[-1].own == own:
            pieces[-1] = Piece(pieces[-1].text + text, own)
        else:
            pieces.append(Piece(text, own))
    return [piece for each in pieces for piece in _trimmed(each)]


def _trimmed(piece: Piece) -> list[Piece]:
    """A mark does not reach over the space behind its last word."""
    text = piece.text.rstrip()
    if not piece.own or text == piece.text:
        return [piece]
    return [Piece(text, True), Piece(piece.text[len(text) :], False)]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
