"""The language of prompts, by lingua (an optional package of 96 MB that works offline)."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FEWEST_WORDS = 4  # shorter prompts are not judged: "a cat" is Romanian as much as English
SUSPECT, SURE = 0.5, 0.4  # confidence that the quick model and the full one must have in another language
PROMPTS_AT_ONCE = 2048
MISSING = "needs lingua: pip install 'sur-feature-cache[language]' (96 MB, works offline)"


def can_tell_languages() -> bool:
    """Whether lingua is installed."""
    return importlib.util.find_spec("lingua") is not None


def languages(prompts: Iterable[str], expected: str | None = None) -> Mapping[str, str]:
    """The language (ISO 639-1) of each prompt of four words or more; "" where it cannot be told from the usual one.

    A quick model of trigrams (110 MB of memory) reads all. What it takes for another language than most (or than
    `expected`) is shown to the full model (1.1 GB, loaded only then), which has to be sure as well: the quick one alone
    takes one English prompt in a hundred for another language.

    Raises: ValueError when `expected` is no language that lingua knows.
    """
    from lingua import Language, LanguageDetectorBuilder

    builder = LanguageDetectorBuilder.from_all_languages
    known = {language.iso_code_639_1.name.lower() for language in Language.all()}
    if expected is not None and expected not in known:
        raise ValueError(f"{expected!r} is no language that lingua knows; give one of {', '.join(sorted(known))}")
    judged = sorted({prompt for prompt in prompts if len(prompt.split()) >= FEWEST_WORDS})
    if not judged:
        return {}
    quick = _likeliest(builder().with_low_accuracy_mode().build(), judged)
    usual = expected or Counter(code for code, _ in quick.values()).most_common(1)[0][0]
    suspects = [prompt for prompt, (code, sure) in quick.items() if code != usual and sure >= SUSPECT]
    found = {prompt: code if code == usual else "" for prompt, (code, _) in quick.items()}
    if suspects:
        detector = builder().build()
        for prompt, (code, sure) in _likeliest(detector, suspects).items():
            if code != usual and sure >= SURE:
                found[prompt] = code
    return found


def _likeliest(detector: Any, prompts: Sequence[str]) -> dict[str, tuple[str, float]]:
    """The likeliest language and the confidence in it, by prompt."""
    found = {}
    for start in range(0, len(prompts), PROMPTS_AT_ONCE):
        some = prompts[start : start + PROMPTS_AT_ONCE]
        for prompt, values in zip(some, detector.compute_language_confidence_values_in_parallel(some), strict=True):
            best = max(values, key=lambda each: each.value)
            found[prompt] = (best.language.iso_code_639_1.name.lower(), best.value)
    return found
