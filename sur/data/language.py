"""The model that tells languages apart: py3langid's (97 languages; 5 MB, offline, no pickle), loaded once."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sur.support.errors import ConfigError


@lru_cache(maxsize=1)
def identifier() -> Any:
    """The loaded model, with probabilities. Raises: ImportError when the extra `language` is not installed."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


FEWEST_WORDS = 4  # shorter prompts are not judged: "a cat" is Romanian as much as English
SURE = 0.7  # probability of another language than the usual one from which a prompt counts as in it
MISSING = "needs py3langid: pip install py3langid (5 MB, works offline)"


def can_tell_languages() -> bool:
    """Whether py3langid is installed."""
    return importlib.util.find_spec("py3langid") is not None


def languages(prompts: Iterable[str], expected: str | None = None) -> Mapping[str, str]:
    """The language (ISO 639-1) of each prompt of four words or more; "" where it cannot be told from the usual one.

    The usual one is `expected`, or that of most prompts; another needs a probability of 0.7.

    Raises: ValueError when `expected` is no language that py3langid knows.
    """
    model = identifier()
    known = sorted(code for code, _ in model.rank("a"))
    if expected is not None and expected not in known:
        raise ValueError(f"{expected!r} is no language that py3langid knows; give one of {', '.join(known)}")
    judged = sorted({prompt for prompt in prompts if len(prompt.split()) >= FEWEST_WORDS})
    found = {prompt: model.classify(prompt) for prompt in judged}
    if not found:
        return {}
    usual = expected or Counter(code for code, _ in found.values()).most_common(1)[0][0]
    return {prompt: code if code == usual or sure >= SURE else "" for prompt, (code, sure) in found.items()}


def language_shares(text: str, languages: Sequence[str]) -> tuple[float, str]:
    """Probability that a text is in one of the languages (ISO 639-1 codes), and the most likely one of all.

    Raises: ConfigError when py3langid is not installed, or does not know a language.
    """
    model = _identifier()
    known = {str(label) for label in model.labels}
    if unknown := sorted(set(languages) - known):
        raise ConfigError(f"filters.languages: {', '.join(unknown)} is not known; known are {', '.join(sorted(known))}")
    ranked = [(str(code), float(share)) for code, share in model.rank(text)]
    return sum(share for code, share in ranked if code in languages), ranked[0][0]


def _identifier() -> Any:
    try:
        return identifier()
    except ImportError:
        raise ConfigError("filters.languages needs py3langid: pip install py3langid; or leave it empty") from None
