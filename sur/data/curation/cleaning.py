"""Cleaning: from a prompt as a generator's user wrote it to its words. Every part that is left out is listed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from sur.config.curation import CleaningConfig, Dialect
from sur.data.curation.control_tokens import CONTROL_TOKEN
from sur.data.curation.metadata.a1111 import read_a1111
from sur.data.curation.prompt_syntax import CONTROL, NEGATIVE, TEXT, Span, parse

QUALITY = "quality tag"
UNWANTED = "unwanted part"
DOUBLED = "repeated part"
_QUALITY_TAG = re.compile(
    r"score_\d+(?:_up)?|rating_\w+|source_\w+|(?:best|high|good|normal|amazing|highest|ultra|top)[ -]quality"
    r"|masterpiece|(?:very )?aesthetic|absurdres|highres|newest|uhd|(?:4|8|16)k",
    re.I,
)
_SETTINGS = re.compile(r"^Steps: \d", re.M)
_NEGATIVE_HEAD = re.compile(r"^[^\S\n]*negative prompt\s*:", re.I | re.M)


class Removal(NamedTuple):
    """A part that is left out of the cleaned prompt: its kind, and its text as written."""

    kind: str
    source: str


@dataclass(frozen=True)
class Cleaned:
    """The words of a prompt, its negative parts, and everything that was left out, in the order of the prompt."""

    text: str
    negative: str
    removed: tuple[Removal, ...]


def clean(prompt: str, config: CleaningConfig, dialect: Dialect | None = None, steps: int | None = None) -> Cleaned:
    """The cleaned prompt.

    dialect: of the tool that wrote the prompt, if known; it takes precedence over the configuration's. steps: of the
    sampler.
    """
    body, negatives, removed = prompt, [], []
    dialect = dialect or config.dialect
    pasted = dialect != "plain" and _SETTINGS.search(prompt)  # with all its settings
    if pasted and (whole := read_a1111(prompt)) is not None:
        body, negatives = whole.prompt, [whole.negative] if whole.negative else []
        removed.append(Removal("settings", prompt[len(body) :] if prompt.startswith(body) else prompt))
    elif dialect != "plain" and (head := _NEGATIVE_HEAD.search(prompt)):
        body, negatives = prompt[: head.start()], [prompt[head.end() :].strip()]
        removed.append(Removal(NEGATIVE, prompt[head.start() :]))
    spans = parse(body, dialect, steps, config.all_choices)
    negatives += [words for span in spans if span.kind == NEGATIVE and (words := _tidy(span.source))]
    removed += _removals(spans)
    text, reassembled = without_control_tokens("".join(span.shown for span in spans))
    removed += reassembled
    negatives, hidden = zip(*map(without_control_tokens, negatives), strict=True) if negatives else ((), ())
    removed += [removal for removals in hidden for removal in removals]
    if config.underscores:
        text = re.sub(r"(?<=\w)_(?=\w)", " ", text)
    parts, dropped = _filter_parts(_parts(text), config)
    return Cleaned(", ".join(parts), ", ".join(negatives), (*removed, *dropped))


def without_control_tokens(text: str) -> tuple[str, list[Removal]]:
    """A text without tokens that would steer a text encoder, and these tokens.

    The parts of one may come together when others, or markup, are taken out from between them.
    """
    removed: list[Removal] = []
    while found := CONTROL_TOKEN.findall(text):
        removed += [Removal(CONTROL, token) for token in found]
        text = CONTROL_TOKEN.sub(", ", text)
    return text, removed


def _removals(spans: list[Span]) -> list[Removal]:
    """The parts that spans leave out; neighbours of one kind are one removal."""
    runs = [(kind, "".join(span.source for span in run)) for kind, run in groupby(spans, key=lambda span: span.kind)]
    return [Removal(kind, source) for kind, source in runs if kind != TEXT]


def _filter_parts(parts: list[str], config: CleaningConfig) -> tuple[list[str], list[Removal]]:
    """The parts between commas that stay, and those that are left out."""
    unwanted = {part.casefold().strip() for part in config.drop_parts}
    remaining: list[str] = []
    dropped: list[Removal] = []
    seen: set[str] = set()
    for part in parts:
        if part.casefold() in unwanted:
            dropped.append(Removal(UNWANTED, part))
        elif config.drop_quality_tags and _QUALITY_TAG.fullmatch(part):
            dropped.append(Removal(QUALITY, part))
        elif config.drop_repeated and part.casefold() in seen:
            dropped.append(Removal(DOUBLED, part))
        else:
            remaining.append(part)
            seen.add(part.casefold())
    return remaining, dropped


def _parts(text: str) -> list[str]:
    """The parts between commas, single-spaced, without empty ones."""
    return [part for piece in text.split(",") if (part := " ".join(piece.split()))]


def _tidy(text: str) -> str:
    return ", ".join(_parts(text))
