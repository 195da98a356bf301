"""The prompt syntaxes of image generators, read into spans that cover a prompt exactly, character by character.

    prompt   = { word | escape | round | square | curly | network | wildcard | keyword | flag }
    escape   = "\\" and one of ( ) [ ] { } < > : | \\
    round    = "(" prompt [ ":" number ] ")" [ "+"... | "-"... | number ]      weight (what follows: invokeai)
    square   = "[" prompt "]"                                                   weight
             | "[" [ prompt ":" ] prompt ":" number "]"                         editing: from, to, when
             | "[" prompt { "|" prompt } "]"                                    alternation
    curly    = "{" [ count "$$" ] [ weight "::" ] prompt { "|" prompt } "}"     variants
    network  = "<" kind ":" name { ":" argument } ">"  |  "embedding:" name
    wildcard = "__" name "__"
    keyword  = "BREAK" | "AND" | "ADDBASE" | "ADDCOL" | "ADDROW" | "ADDCOMM"
    flag     = "--" name [ value ]                                              midjourney only

In ComfyUI square brackets are plain text. Brackets without a partner are markup too. Every text is a prompt: nothing
is refused. One pass over the tokens with a stack, so that depth costs no recursion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from sur.build.embedded import Dialect

TEXT = ""
WEIGHT, ZERO, NEGATIVE, EDITING, CHOICE = "weight", "weight of zero", "negative part", "editing", "choice"
NETWORK, WILDCARD, KEYWORD, FLAG, UNBALANCED = "network", "wildcard", "keyword", "flag", "unbalanced bracket"
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_TOKEN = re.compile(
    r"(?P<escape>\\[()\[\]{}<>:|\\])"
    r"|(?P<network><[A-Za-z]\w*:[^<>]*>|\bembedding:[\w./\\-]+(?<![.:]))"
    r"|(?P<wildcard>__[A-Za-z0-9*][\w\-/.*]*?__)"
    r"|(?P<keyword>\b(?:BREAK|AND|ADDBASE|ADDCOL|ADDROW|ADDCOMM)\b)"
    r"|(?P<mark>[()\[\]{}:|])"
    r"|(?P<text>[^\\()\[\]{}:|<_BAe]+|.)",
    re.S,
)
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*")
_INVOKE_SUFFIX = re.compile(r"\++|-+(?=[\s,.)]|$)|\d+(?:\.\d+)?(?=[\s,)]|$)")
_INVOKE_WORD = re.compile(r"(?<=\w)(?:\++|-{2,})(?=[\s,.)]|$)")
_FLAG = re.compile(r"(?:(?<=\s)|^)(?:--|—)(?P<name>[a-z]+)(?P<value>(?:(?!\s(?:--|—)[a-z]).)*)", re.S)
_VARIANT_HEAD = re.compile(r"\s*\d+(?:-\d+)?\$\$(?:[^|{}]*?\$\$)?|\s*(?:\d+\.?\d*|\.\d+)::")


class Span(NamedTuple):
    """A stretch of a prompt: as written, as it is to be read, and what it is ("" words that are kept)."""

    source: str
    shown: str
    kind: str = TEXT

    def dropped(self, kind: str) -> Span:
        """The same stretch, left out; what was left out already stays what it was."""
        return self if self.kind else Span(self.source, "", kind)


@dataclass
class _Frame:
    """An open bracket and the spans since then; `marks` are the places of its own colons and bars among them."""

    bracket: str
    spans: list[Span] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)

    def places(self, mark: str) -> list[int]:
        return [place for place in self.marks if self.spans[place].source == mark]

    def add_text(self, text: str) -> None:
        """Append plain words, to those before them where there are any."""
        last = len(self.spans) - 1
        if last >= 0 and last not in self.marks[-1:] and self.spans[last].kind == TEXT:
            before = self.spans[last]
            self.spans[last] = Span(before.source + text, before.shown + text)
        else:
            self.spans.append(Span(text, text))


def parse(prompt: str, dialect: Dialect = "a1111", steps: int | None = None, all_choices: bool = False) -> list[Span]:
    """Spans whose `source` joined is the prompt itself.

    steps: of the sampler, which tell the longer part of an editing given in steps; default 20.
    all_choices: keep every alternative of a choice, not its first.
    """
    if dialect == "plain":
        return [Span(prompt, prompt)]
    flags: list[Span] = []
    if dialect == "midjourney":
        prompt, flags = _split_flags(prompt)
    stack = [_Frame("")]
    place = 0
    while place < len(prompt):
        found = _TOKEN.match(prompt, place)
        assert found is not None  # its last branch takes any character
        token, kind, place = found.group(), found.lastgroup, found.end()
        if kind == "mark" and not (token in "[]" and dialect == "comfyui"):
            if token in ")]}":
                place += _close(stack, token, prompt, place, dialect, steps, all_choices)
            else:
                _open_or_mark(stack, token)
        elif kind in ("text", "mark"):
            stack[-1].add_text(token)
        else:
            stack[-1].spans.append(_span(token, kind))
    while len(stack) > 1:
        _abandon(stack)
    spans = _weigh_subprompts(stack[0])
    return (_invoke_words(spans) if dialect == "invokeai" else spans) + flags


def _span(token: str, kind: str | None) -> Span:
    if kind == "escape":
        return Span(token, token[1])
    if kind == "keyword":
        return Span(token, ", ", KEYWORD)
    return Span(token, "", NETWORK if kind == "network" else WILDCARD)


def _open_or_mark(stack: list[_Frame], token: str) -> None:
    if token in "([{":
        stack.append(_Frame(token, [Span(token, "", WEIGHT)]))
    else:
        stack[-1].marks.append(len(stack[-1].spans))
        stack[-1].spans.append(Span(token, token))


def _abandon(stack: list[_Frame]) -> None:
    """Give an open bracket's spans to the one around it; the bracket had no partner."""
    frame = stack.pop()
    stack[-1].spans += [Span(frame.bracket, "", UNBALANCED), *frame.spans[1:]]


def _close(
    stack: list[_Frame], token: str, prompt: str, place: int, dialect: Dialect, steps: int | None, all_choices: bool
) -> int:
    """Close the bracket that a token ends; returns how many characters after it belong to it."""
    if _CLOSERS[token] not in [frame.bracket for frame in stack]:
        stack[-1].spans.append(Span(token, "", UNBALANCED))
        return 0
    while stack[-1].bracket != _CLOSERS[token]:
        _abandon(stack)
    frame = stack.pop()
    bars = frame.places("|") if token in "]}" else []
    if bars or token == "}":
        spans = _choose(frame, bars, all_choices)
    elif token == "]" and (when := _trailing_number(frame)) is not None:
        spans = _edit(frame, when, steps)
    else:
        spans = _weigh(frame, token)
    suffix = _INVOKE_SUFFIX.match(prompt, place) if dialect == "invokeai" and token == ")" else None
    tail = suffix.group() if suffix else ""
    stack[-1].spans += [*spans, Span(token + tail, "", spans[0].kind)]
    return len(tail)


def _trailing_number(frame: _Frame) -> float | None:
    """The number behind a frame's last colon, when nothing else is."""
    colons = frame.places(":")
    if not colons:
        return None
    behind = frame.spans[colons[-1] + 1 :]
    found = _NUMBER.fullmatch("".join(span.source for span in behind))
    return float(found.group(1)) if found and not any(span.kind for span in behind) else None


def _weigh(frame: _Frame, token: str) -> list[Span]:
    """A weight: its words stay, unless it is zero or negative."""
    weight = _trailing_number(frame) if token == ")" else None
    if weight is None:
        return frame.spans
    colon = frame.places(":")[-1]
    kind = WEIGHT if weight > 0 else ZERO if weight == 0 else NEGATIVE
    inside = frame.spans[1:colon]
    if weight <= 0:
        inside = [span.dropped(kind) for span in inside]
    return [frame.spans[0], *inside, *(span.dropped(WEIGHT) for span in frame.spans[colon:])]


def _edit(frame: _Frame, when: float, steps: int | None) -> list[Span]:
    """Editing: of its two texts the one that holds for the longer part of the steps; the later one of equals."""
    colons = frame.places(":")
    share = when if 0 <= when < 1 else when / (steps or 20)
    middle = colons[0] if len(colons) > 1 else 0  # [to:when] has no `from`
    before, after = frame.spans[1:middle] if middle else [], frame.spans[middle + 1 : colons[-1]]
    keeps_before = share > 0.5
    head = Span("[", "", EDITING)
    before = before if keeps_before else [span.dropped(EDITING) for span in before]
    after = [span.dropped(EDITING) for span in after] if keeps_before else after
    between = [Span(":", "", EDITING)] if middle else []
    return [head, *before, *between, *after, *(span.dropped(EDITING) for span in frame.spans[colons[-1] :])]


def _choose(frame: _Frame, bars: list[int], all_choices: bool) -> list[Span]:
    """Alternatives: the first that has words, or all of them with commas between."""
    kind = CHOICE if bars else WEIGHT  # {word} alone is a weight, in NovelAI
    starts, ends = [0, *bars], [*bars, len(frame.spans)]
    options = [frame.spans[start + 1 : end] for start, end in zip(starts, ends, strict=True)]
    if frame.bracket == "{":
        options = [_behead(option) for option in options]
    shown = ["".join(span.shown for span in option).strip() for option in options]
    chosen = next((i for i, words in enumerate(shown) if words), 0)
    spans = [Span(frame.bracket, "", kind)]
    for i, option in enumerate(options):
        if i:
            spans.append(Span("|", ", " if all_choices else "", CHOICE))
        spans += option if all_choices or i == chosen else [span.dropped(CHOICE) for span in option]
    return spans


def _behead(option: list[Span]) -> list[Span]:
    """Take the count (2$$) or weight (0.5::) off an alternative of a variant."""
    if not option or not option[0].source.lstrip()[:1].isdecimal() and not option[0].source.lstrip().startswith("."):
        return option
    found = _VARIANT_HEAD.match("".join(span.source for span in option))
    if found is None:
        return option
    left = found.end()
    made = [Span(found.group(), "", CHOICE)]
    for span in option:
        cut = min(left, len(span.source))
        left -= cut
        if cut == 0:
            made.append(span)
        elif cut < len(span.source):
            rest = span.source[cut:]
            made.append(Span(rest, "" if span.kind else rest, span.kind))
    return made


def _weigh_subprompts(frame: _Frame) -> list[Span]:
    """The weights of subprompts that AND joins: "a cat AND dogs:-1"; those of negative ones are left out."""
    ands = [i for i, span in enumerate(frame.spans) if span.kind == KEYWORD and span.source == "AND"]
    if not ands:
        return frame.spans
    spans = list(frame.spans)
    for start, end in zip([0, *(i + 1 for i in ands)], [*ands, len(spans)], strict=True):
        colons = [place for place in frame.places(":") if start <= place < end]
        part = _Frame("", spans[start:end], [place - start for place in colons])
        if (weight := _trailing_number(part)) is not None:
            tail = colons[-1]
            kind = NEGATIVE if weight < 0 else ZERO
            words = spans[start:tail] if weight > 0 else [span.dropped(kind) for span in spans[start:tail]]
            spans[start:end] = [*words, *(span.dropped(WEIGHT) for span in spans[tail:end])]
    return spans


def _invoke_words(spans: list[Span]) -> list[Span]:
    """Take InvokeAI's plus and minus signs off single words: "bright++"."""
    made: list[Span] = []
    for span in spans:
        place = 0
        for found in _INVOKE_WORD.finditer(span.source) if not span.kind else ():
            words = span.source[place : found.start()]
            made += [Span(words, words), Span(found.group(), "", WEIGHT)]
            place = found.end()
        rest = span.source[place:]
        made += [span] if place == 0 else [Span(rest, rest)] if rest else []
    return made


def _split_flags(prompt: str) -> tuple[str, list[Span]]:
    """Midjourney's flags off the end; the value of --no is a negative part."""
    first = _FLAG.search(prompt)
    if first is None:
        return prompt, []
    flags: list[Span] = []
    place = first.start()
    for found in _FLAG.finditer(prompt, place):
        between = prompt[place : found.start()]
        flags += [Span(between, "", FLAG)] if between else []
        if found["name"] == "no":
            flags += [Span(prompt[found.start() : found.start("value")], "", FLAG), Span(found["value"], "", NEGATIVE)]
        else:
            flags.append(Span(found.group(), "", FLAG))
        place = found.end()
    flags += [Span(prompt[place:], "", FLAG)] if place < len(prompt) else []
    return prompt[: first.start()], flags
