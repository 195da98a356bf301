"""The filters of a build. Every check returns nothing, or raises `LeftOut` with the reason."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from sur.config.curation import FiltersConfig
from sur.data.curation.content_words import repeated_share, shared_content, words
from sur.data.language import language_probability
from sur.support.errors import ConfigError, RowError

Column = Literal["text", "prompt"]  # of SURD: the simple narrative, the complex prompt
PICTURE = "file_name"
_VERBS = "help|assist|fulfill?|comply|create|generate|provide|write|rewrite|do that|process|engage"
REFUSAL = re.compile(
    r"^\W*(?:i(?:['’]m| am) (?:\w+ )?(?:sorry|unable|afraid|not able|an ai)|sorry,"
    rf"|i (?:can(?:not|['’]t)|won['’]t|will not) (?:\w+ ){{0,2}}(?:{_VERBS})"
    r"|as an? (?:ai|language model|assistant)|unfortunately, (?:i|as an)|i apologi[sz]e|my apologies)",
    re.I,
)


class LeftOut(RowError):
    """A filter leaves the row out; `filter` is the name under which the report counts it."""

    def __init__(self, filter: str, field: str, reason: str, remedy: str) -> None:
        super().__init__(field, reason, remedy)
        self.filter = filter


def check_picture(image: Image.Image, config: FiltersConfig) -> None:
    """Raises: LeftOut for a picture that is tiny or blank."""
    if min(image.size) < config.min_image_side:
        reason = f"{image.width} x {image.height} pixels, the shorter side is less than {config.min_image_side}"
        raise LeftOut("small picture", PICTURE, reason, "take a larger one, or lower filters.min_image_side")
    deviation = float(np.asarray(image.convert("L"), dtype=np.float32).std())
    if deviation < config.min_image_deviation:
        reason = f"blank: its grey levels deviate by {deviation:.2f}, less than {config.min_image_deviation:g}"
        raise LeftOut("blank picture", PICTURE, reason, "remove it, or lower filters.min_image_deviation")


def check_text(text: str, column: Column, config: FiltersConfig) -> None:
    """Raises: LeftOut for a text of the wrong length or language, or with a forbidden word."""
    count = len(words(text))
    name = "simple" if column == "text" else "complex"
    least, most = (getattr(config, f"{which}_{name}_words") for which in ("min", "max"))
    if not count:
        raise LeftOut("empty text", column, "no words are left" if text.strip() else "empty", "write some")
    if count < least:
        reason = f"{count} words, less than {least}"
        raise LeftOut("too short", column, reason, f"lower filters.min_{name}_words, or leave it out")
    if count > most:
        reason = f"{count} words, more than {most}"
        raise LeftOut("too long", column, reason, f"raise filters.max_{name}_words, or shorten it")
    if match := _forbidden(config.forbidden_words, config.forbidden_file).search(text):
        reason = f"holds the forbidden {match.group()!r}"
        raise LeftOut("forbidden word", column, reason, "nothing to do, or change filters.forbidden_words")
    if config.languages:
        share, likely = language_probability(text, config.languages)
        if share < config.min_language_share:
            expected = " or ".join(config.languages)
            reason = f"not in {expected} (probability {share:.3f}), it looks like {likely}"
            raise LeftOut("language", column, reason, "change filters.languages, or lower filters.min_language_share")


def check_written(text: str, column: Column, finished: bool, config: FiltersConfig) -> None:
    """Raises: LeftOut for a model's text that refuses, is empty, loops or does not end."""
    if not text.strip():
        raise LeftOut("empty answer", column, "the model wrote nothing", "try another model or instruction")
    if REFUSAL.match(text):
        raise LeftOut("refusal", column, f"the model refused: {text[:80]!r}", "try another model or instruction")
    repeated = repeated_share(text)
    if repeated > config.max_repeated_share:
        reason = f"the model repeats itself: {repeated:.0%} of {text[:60]!r}… was there before"
        raise LeftOut("looping", column, reason, "try another model, or raise filters.max_repeated_share")
    if not finished and not config.keep_unfinished:
        reason = f"the model did not come to an end: …{text[-60:]!r}"
        raise LeftOut("unfinished", column, reason, "raise max_new_tokens, or set filters.keep_unfinished")


def check_rewrite(original: str, rewritten: str, column: Column, config: FiltersConfig) -> None:
    """Raises: LeftOut for a rewrite that changed nothing, lost what the original says, or says something else."""
    if words(original) == words(rewritten):
        raise LeftOut("unchanged", column, "the rewrite has the same words", "try another model or instruction")
    share = shared_content(original, rewritten)
    if share < config.min_kept_share:
        reason = f"keeps {share:.0%} of the content words of {original[:60]!r}, less than {config.min_kept_share:.0%}"
        raise LeftOut("lost words", column, reason, "try another model, or lower filters.min_kept_share")
    share = shared_content(rewritten, original)
    if column == "text" and share < config.min_grounded_share:
        reason = (
            f"has {share:.0%} of its content words from {original[:60]!r}, less than {config.min_grounded_share:.0%}"
        )
        raise LeftOut("invented words", column, reason, "try another model, or lower filters.min_grounded_share")


def forbidden_words(config: FiltersConfig) -> tuple[str, ...]:
    """The forbidden words of the list and the file. Raises: ConfigError when the file cannot be read."""
    if config.forbidden_file is None:
        return config.forbidden_words
    try:
        lines = config.forbidden_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"filters.forbidden_file: cannot read {config.forbidden_file} ({error})") from None
    return (*config.forbidden_words, *(line.strip() for line in lines if line.strip()))


@lru_cache(maxsize=8)
def _forbidden(listed: tuple[str, ...], file: Path | None) -> re.Pattern[str]:
    """A pattern that finds the words as whole words, in any case; an empty list gives one that matches nothing."""
    forbidden = forbidden_words(FiltersConfig(forbidden_words=listed, forbidden_file=file))
    phrases = [r"\s+".join(map(re.escape, phrase.split())) for phrase in sorted(forbidden, key=len, reverse=True)]
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)" if phrases else r"(?!)", re.I)
