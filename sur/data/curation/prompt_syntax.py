"""The prompt syntaxes of image generators, read into spans that cover a prompt exactly, character by character.

    prompt   = { word | escape | round | square | curly | control | network | wildcard | keyword | flag }
    escape   = "\\" and one of ( ) [ ] { } < > : | \\
    round    = "(" prompt [ ":" number ] ")" [ "+"... | "-"... | number ]      weight (what follows: invokeai)
    square   = "[" prompt "]"                                                   weight
             | "[" [ prompt ":" ] prompt ":" number "]"                         editing: from, to, when
             | "[" prompt { "|" prompt } "]"                                    alternation
    curly    = "{" [ count "$$" ] [ weight "::" ] prompt { "|" prompt } "}"     variants
    control  = "<|" name "|>"  |  "<s>" and the like: a token that steers a model
    network  = "<" kind ":" name { ":" argument } ">"  |  "embedding:" name
    wildcard = "__" name "__"
    keyword  = "BREAK" | "AND" | "ADDBASE" | "ADDCOL" | "ADDROW" | "ADDCOMM"
    flag     = "--" name [ value ]                                              midjourney only

In ComfyUI square brackets are plain text. Brackets without a partner are markup too. Every text is a prompt: nothing
is refused. One pass over the tokens with a stack, so that depth costs no recursion, and no time but its own length's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from sur.config.curation import Dialect
from sur.data.curation.control_tokens import CONTROL_TOKEN

TEXT = ""
WEIGHT, ZERO, NEGATIVE, EDITING, CHOICE = "weight", "weight of zero", "negative part", "editing", "choice"
NETWORK, WILDCARD, KEYWORD, FLAG, UNBALANCED = "network", "wildcard", "keyword", "flag", "unbalanced bracket"
CONTROL = "control token"
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_TOKEN = re.compile(
    r"(?P<escape>\\[()\[\]{}<>:|\\])"
    rf"|(?P<control>{CONTROL_TOKEN.pattern})"
    r"|(?P<network><[A-Za-z]\w*:[^<>]*>|\bembedding:[\w./\\-]+(?<![.:]))"
    r"|(?P<wildcard>__[A-Za-z0-9*][\w\-/.*]*?__)"
    r"|(?P<keyword>\b(?:BREAK|AND|ADDBASE|ADDCOL|ADDROW|ADDCOMM)\b)"
    r"|(?P<mark>[()\[\]{}:|])"
    r"|(?P<text>[^\\()\[\]{}:|<_BAe]+|.)",
    re.S,
)
_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*")
_INVOKE_SUFFIX = re.compile(r"\++|-+(?=[\s,.)]|$)|\d+(?:\.\d+)?(?=[\s,)]|$)")
_INVOKE_WORD = re.compile(r"(?<=\w)(?:\++|-{2,})(?=[\s,.)]|$)")
_FLAG = re.compile(r"(?:(?<=\s)|^)(?:--|—)(?P<name>[a-z]+)(?P<value>(?:(?!\s(?:--|—)[a-z]).)*)", re.S)
_VARIANT_HEAD = re.compile(r"\s*\d+(?:-\d+)?\$\$(?:[^|{}]*?\$\$)?|\s*(?:\d+(?:\.\d*)?|\.\d+)::")


class Span(NamedTuple):
    """A stretch of a prompt: as written, as shown in the cleaned prompt, and its kind ("" for words that stay)."""

    source: str
    shown: str
    kind: str = TEXT

    def dropped(self, kind: str) -> Span:
        """The same stretch, left out; one that was left out before keeps its kind."""
        return self if self.kind else Span(self.source, "", kind)


@dataclass
class _Frame:
    """An open bracket: the place of its span (-1: the prompt itself), and those of its own colons and bars."""

    bracket: str
    start: int
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


def parse(prompt: str, dialect: Dialect = "a1111", steps: int | None = None, all_choices: bool = False) -> list[Span]:
    """Spans whose `source` joined is the prompt itself; in time that grows with its length.

    steps: of the sampler, which tell the longer part of an editing given in steps; default 20.
    all_choices: keep every alternative of a choice, not its first.
    """
    if dialect == "plain":
        return _split_control(prompt)
    flags: list[Span] = []
    if dialect == "midjourney":
        prompt, flags = _split_flags(prompt)
    spans = _Reader(prompt, dialect, steps, all_choices).read()
    return (_invoke_words(spans) if dialect == "invokeai" else spans) + flags


def _split_control(prompt: str) -> list[Span]:
    """The words of a prompt, and the control tokens between them."""
    spans, place = [], 0
    for found in CONTROL_TOKEN.finditer(prompt):
        spans += [Span(prompt[place : found.start()], prompt[place : found.start()]), _span(found.group(), "control")]
        place = found.end()
    return [span for span in (*spans, Span(prompt[place:], prompt[place:])) if span.source]


class _Reader:
    """One pass over a prompt. Spans are appended to one list and changed where they are, never moved.

    That, and two notes of what need not be looked at again, keep deep brackets from costing their depth at each level:
    `_gone[i] = j`: no span from i to before j is plain words any more; `_blank[i] = j`: none of them shows words.
    """

    def __init__(self, prompt: str, dialect: Dialect, steps: int | None, all_choices: bool) -> None:
        self._prompt, self._dialect, self._steps, self._all = prompt, dialect, steps, all_choices
        self._spans: list[Span] = []
        self._heads: dict[int, Span] = {}  # counts and weights of variants, which stand before the span of that place
        self._stack = [_Frame("", -1)]
        self._open = dict.fromkeys("([{", 0)  # how many of each bracket are on the stack
        self._gone: dict[int, int] = {}
        self._blank: dict[int, int] = {}

    def read(self) -> list[Span]:
        prompt, place, words = self._prompt, 0, 0  # words: where those that are not yet a span begin
        while place < len(prompt):
            match = _TOKEN.match(prompt, place)
            assert match is not None  # its last branch takes any character
            token, kind, start, place = match.group(), match.lastgroup, place, match.end()
            if kind == "text" or (token in "[]" and self._dialect == "comfyui"):
                continue
            self._add_text(prompt[words:start])
            if kind != "mark":
                self._spans.append(_span(token, kind))
            elif token in ")]}":
                place += self._close(token, place)
            else:
                self._open_or_mark(token)
            words = place
        self._add_text(prompt[words:])
        while len(self._stack) > 1:
            self._abandon()
        self._weigh_subprompts()
        return [each for i, span in enumerate(self._spans) for each in (self._heads.get(i), span) if each is not None]

    def _add_text(self, text: str) -> None:
        if text:
            self._spans.append(Span(text, text))

    def _open_or_mark(self, token: str) -> None:
        frame, place = self._stack[-1], len(self._spans)
        if token in self._open:
            self._stack.append(_Frame(token, place))
            self._open[token] += 1
            self._spans.append(Span(token, "", WEIGHT))
        else:
            (frame.colons if token == ":" else frame.bars).append(place)
            self._spans.append(Span(token, token))

    def _abandon(self) -> None:
        """Leave an open bracket's spans to the one around it; the bracket had no partner."""
        frame = self._pop()
        self._spans[frame.start] = Span(frame.bracket, "", UNBALANCED)

    def _pop(self) -> _Frame:
        frame = self._stack.pop()
        self._open[frame.bracket] -= 1
        return frame

    def _close(self, token: str, place: int) -> int:
        """Close the bracket that a token ends; returns how many characters after it belong to it."""
        if not self._open[_CLOSERS[token]]:
            self._spans.append(Span(token, "", UNBALANCED))
            return 0
        while self._stack[-1].bracket != _CLOSERS[token]:
            self._abandon()
        frame = self._pop()
        bars = frame.bars if token in "]}" else []
        when = None if bars or token == "}" else self._trailing_number(frame.colons, len(self._spans))
        if bars or token == "}":
            self._choose(frame, bars)
        elif when is not None and token == "]":
            self._edit(frame, when)
        elif when is not None:
            self._weigh(frame, when)
        suffix = _INVOKE_SUFFIX.match(self._prompt, place) if self._dialect == "invokeai" and token == ")" else None
        tail = suffix.group() if suffix else ""
        self._spans.append(Span(token + tail, "", self._spans[frame.start].kind))
        return len(tail)

    def _trailing_number(self, colons: Sequence[int], end: int) -> float | None:
        """The number behind the last colon, when nothing else is before `end`."""
        if not colons or colons[-1] + 2 != end:
            return None
        behind = self._spans[end - 1]
        match = _NUMBER.fullmatch(behind.source)
        return float(match.group(1)) if match and not behind.kind else None

    def _weigh(self, frame: _Frame, weight: float) -> None:
        """A weight: its words stay, unless it is zero or negative."""
        colon = frame.colons[-1]
        if weight <= 0:
            self._drop(frame.start + 1, colon, NEGATIVE if weight < 0 else ZERO)
        self._drop(colon, len(self._spans), WEIGHT)

    def _edit(self, frame: _Frame, when: float) -> None:
        """Editing: of its two texts the one that holds for the longer part of the steps; the later one of equals."""
        first, last = frame.start + 1, frame.colons[-1]
        share = when if 0 <= when < 1 else when / (self._steps or 20)
        self._spans[frame.start] = Span("[", "", EDITING)
        middle = frame.start  # [to:when] has no `from`
        if len(frame.colons) > 1:
            middle = frame.colons[0]
            self._spans[middle] = Span(":", "", EDITING)
        if share > 0.5:
            self._drop(middle + 1, last, EDITING)
        else:
            self._drop(first, middle, EDITING)
        self._drop(last, len(self._spans), EDITING)

    def _choose(self, frame: _Frame, bars: Sequence[int]) -> None:
        """Alternatives: the first that has words, or all of them with commas between."""
        kind = CHOICE if bars else WEIGHT  # {word} alone is a weight, in NovelAI
        self._spans[frame.start] = Span(frame.bracket, "", kind)
        options = list(zip([frame.start + 1, *(bar + 1 for bar in bars)], [*bars, len(self._spans)], strict=True))
        if frame.bracket == "{":
            for option in options:
                self._behead(*option)
        for bar in bars:
            self._spans[bar] = Span("|", ", " if self._all else "", CHOICE)
        if self._all:
            return
        chosen = next((option for option in options if self._has_words(*option)), options[0])
        for option in options:
            if option != chosen:
                self._drop(*option, CHOICE)

    def _behead(self, start: int, end: int) -> None:
        """Take the count (2$$) or weight (0.5::) off an alternative of a variant."""
        first = self._spans[start].source.lstrip()[:1] if start < end else ""
        if not first.isdecimal() and first != ".":
            return
        near = takewhile(lambda source: source[0] not in "{|}", (self._spans[i].source for i in range(start, end)))
        match = _VARIANT_HEAD.match("".join(near))  # no head goes across these three
        left, place = match.end() if match else 0, start
        while place < end and left >= len(self._spans[place].source):
            left -= len(self._spans[place].source)
            self._spans[place] = Span(self._spans[place].source, "", CHOICE)
            place += 1
        if left:
            source, kind = self._spans[place].source, self._spans[place].kind
            self._heads[place] = Span(source[:left], "", CHOICE)
            self._spans[place] = Span(source[left:], "" if kind else source[left:], kind)

    def _has_words(self, start: int, end: int) -> bool:
        """Whether a stretch shows any."""
        place = start
        while place < end and not self._spans[place].shown.strip():
            place = self._blank.get(place, place + 1)
        if place > start:
            self._blank[start] = place
        return place < end

    def _drop(self, start: int, end: int, kind: str) -> None:
        """Leave out the words of a stretch."""
        place = start
        while place < end:
            if place in self._gone:
                place = self._gone[place]
            else:
                self._spans[place] = self._spans[place].dropped(kind)
                place += 1
        if start < end:
            self._gone[start] = end

    def _weigh_subprompts(self) -> None:
        """The weights of subprompts that AND joins: "a cat AND dogs:-1"; those of negative ones are left out."""
        ands = [i for i, span in enumerate(self._spans) if span.kind == KEYWORD and span.source == "AND"]
        colons = self._stack[0].colons
        for start, end in zip([0, *(i + 1 for i in ands)], [*ands, len(self._spans)], strict=True) if ands else ():
            own = colons[bisect_left(colons, start) : bisect_left(colons, end)]
            if (weight := self._trailing_number(own, end)) is not None:
                if weight <= 0:
                    self._drop(start, own[-1], NEGATIVE if weight < 0 else ZERO)
                self._drop(own[-1], end, WEIGHT)


def _span(token: str, kind: str | None) -> Span:
    if kind == "escape":
        return Span(token, token[1])
    if kind == "keyword":
        return Span(token, ", ", KEYWORD)
    if kind == "control":
        return Span(token, ", ", CONTROL)
    return Span(token, "", NETWORK if kind == "network" else WILDCARD)


def _invoke_words(spans: list[Span]) -> list[Span]:
    """Take InvokeAI's plus and minus signs off single words: "bright++"."""
    split: list[Span] = []
    for span in spans:
        place = 0
        for match in _INVOKE_WORD.finditer(span.source) if not span.kind else ():
            words = span.source[place : match.start()]
            split += [Span(words, words), Span(match.group(), "", WEIGHT)]
            place = match.end()
        rest = span.source[place:]
        split += [span] if place == 0 else [Span(rest, rest)] if rest else []
    return split


def _split_flags(prompt: str) -> tuple[str, list[Span]]:
    """Midjourney's flags off the end; the value of --no is a negative part."""
    first = _FLAG.search(prompt)
    if first is None:
        return prompt, []
    flags: list[Span] = []
    place = first.start()
    for match in _FLAG.finditer(prompt, place):
        between = prompt[place : match.start()]
        flags += [Span(between, "", FLAG)] if between else []
        if match["name"] == "no":
            flags += [Span(prompt[match.start() : match.start("value")], "", FLAG), Span(match["value"], "", NEGATIVE)]
        else:
            flags.append(Span(match.group(), "", FLAG))
        place = match.end()
    flags += [Span(prompt[place:], "", FLAG)] if place < len(prompt) else []
    return prompt[: first.start()], flags
