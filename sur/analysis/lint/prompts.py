"""Checks of the prompts alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from sur.analysis.lint.finding import Finding
from sur.analysis.lint.similar import similar_texts
from sur.cache import RowRecord

# A weak check: the list has English words only, misses paraphrase, and hits innocent uses too ("nude colours").
UNSAFE_WORDS = (
    "nude", "nudes", "nudity", "naked", "nsfw", "porn", "porno", "pornographic", "hentai", "erotic", "erotica", "xxx",
    "sex", "sexual", "topless", "genitals", "penis", "vagina", "loli", "lolicon", "shota", "gore", "gory", "beheading",
    "beheaded", "decapitated", "dismembered", "mutilated", "corpse", "suicide", "rape", "nazi", "swastika",
)  # fmt: skip
QUOTED = 70  # characters of a prompt that a message quotes
KEEP_ONE = "keep one of them and leave the others out (--write)"
SEVERAL_PICTURES = (
    "wanted where one prompt has several pictures, so --write leaves one row a picture; else keep one row"
)


def duplicates(rows: Sequence[RowRecord]) -> Iterator[Finding]:
    """Findings of rows that are equal in both prompts but for case and spaces.

    Several pictures of one prompt may be wanted, so only rows that repeat a picture of their group are left out.
    """
    groups: dict[tuple[str, str], list[RowRecord]] = {}
    for row in rows:
        groups.setdefault((folded(row.simple), folded(row.complex)), []).append(row)
    for group in groups.values():
        if len(group) > 1:
            ids = hex_ids(group)
            message = f"{len(group)} rows have the same prompts ({quoted(group[0].simple)})"
            pictures: set[str] = set()
            repeated = []
            for row in group:
                if row.image in pictures:
                    repeated.append(row)
                pictures.add(row.image)
            remedy = KEEP_ONE if len(pictures) == 1 else SEVERAL_PICTURES
            yield Finding("duplicate", message, remedy, ids, hex_ids(repeated))


def near_duplicates(rows: Sequence[RowRecord], threshold: float) -> Iterator[Finding]:
    """Findings of rows whose two prompts together are nearly the same; exact duplicates count once."""
    first: dict[tuple[str, str], RowRecord] = {}
    for row in rows:
        first.setdefault((folded(row.simple), folded(row.complex)), row)
    distinct = list(first.values())
    for group in similar_texts([f"{row.simple} {row.complex}" for row in distinct], threshold):
        members = [distinct[index] for index in group]
        ids = hex_ids(members)
        first_two = ", ".join(quoted(row.simple) for row in members[:2])
        message = f"{len(members)} rows' prompts are nearly the same: {first_two}"
        yield Finding("near-duplicate", message, KEEP_ONE, ids, ids[1:])


def same_prompts(rows: Sequence[RowRecord]) -> Iterator[Finding]:
    """Findings of rows whose simple prompt equals their complex one, which teach the adapter to do nothing."""
    for row in rows:
        if row.complex and folded(row.simple) == folded(row.complex):
            message = f"the simple and the complex prompt are the same ({quoted(row.simple)})"
            yield single_row_finding("same-prompt", row, message, "write one of them anew, or leave the row out")


def unsafe_prompts(rows: Sequence[RowRecord]) -> Iterator[Finding]:
    """Findings of prompts with a word of a short list."""
    pattern = re.compile(rf"\b({'|'.join(UNSAFE_WORDS)})\b", re.IGNORECASE)
    for row in rows:
        if match := pattern.search(f"{row.simple}\n{row.complex}"):
            message = f"a prompt holds {match[0]!r} ({quoted(row.simple)})"
            yield single_row_finding("unsafe-prompt", row, message, "look at it; leave it out if it is not wanted")


def foreign_prompts(rows: Sequence[RowRecord], languages: Mapping[str, str], expected: str | None) -> Iterator[Finding]:
    """Findings of simple prompts in another language than `expected` (default: that of most rows).

    languages: ISO 639-1 code of each prompt.
    """
    counts = Counter(languages.get(row.simple, "") for row in rows)
    counts.pop("", None)
    usual = expected or (counts.most_common(1)[0][0] if counts else "")
    for row in rows:
        language = languages.get(row.simple, "")
        if language and language != usual:
            message = f"the simple prompt seems to be in {language}, not {usual} ({quoted(row.simple)})"
            remedy = f"translate it or leave it out, unless the text encoder reads {language}"
            yield single_row_finding("language", row, message, remedy)


def folded(text: str) -> str:
    """A prompt in lower case with single spaces, by which prompts are compared."""
    return " ".join(text.casefold().split())


def quoted(text: str) -> str:
    """The beginning of a prompt, for a message."""
    return f"“{text if len(text) <= QUOTED else text[: QUOTED - 1] + '…'}”"


def hex_ids(rows: Sequence[RowRecord]) -> tuple[str, ...]:
    """Ids of rows in hex."""
    return tuple(row.id.hex() for row in rows)


def single_row_finding(check: str, row: RowRecord, message: str, remedy: str) -> Finding:
    """A finding about one row, which is to be left out."""
    ids = (row.id.hex(),)
    return Finding(check, message, remedy, ids, ids)
