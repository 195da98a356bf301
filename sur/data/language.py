"""The language of prompts, by py3langid: 97 languages, 5 MB, works offline, loads no pickle.

`sur lint` asks for the language of each prompt, the filters of `sur build` for the probability of given languages.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sur.support.errors import ConfigError

FEWEST_WORDS = 4  # in shorter prompts a language cannot be told: "a cat" is Romanian as much as English
SURE = 0.7  # probability of another language than the usual one from which on a prompt counts as in that language
INSTALL = "pip install py3langid"
MISSING = f"needs py3langid: {INSTALL} (5 MB, works offline)"


def can_tell_languages() -> bool:
    """Whether py3langid is installed."""
    return importlib.util.find_spec("py3langid") is not None


def languages(prompts: Iterable[str], expected: str | None = None) -> Mapping[str, str]:
    """The language (ISO 639-1) of each prompt of four words or more; "" where it cannot be told from the usual one.

    The usual one is `expected`, or that of most prompts; another needs a probability of 0.7.

    Raises: ConfigError when py3langid is not installed; ValueError when it does not know `expected`.
    """
    model = _model()
    known = sorted(code for code, _ in model.rank("a"))
    if expected is not None and expected not in known:
        raise ValueError(f"{expected!r} is no language that py3langid knows; give one of {', '.join(known)}")
    long_enough = sorted({prompt for prompt in prompts if len(prompt.split()) >= FEWEST_WORDS})
    likeliest = {prompt: model.classify(prompt) for prompt in long_enough}
    if not likeliest:
        return {}
    usual = expected or Counter(code for code, _ in likeliest.values()).most_common(1)[0][0]
    return {
        prompt: code if code == usual or probability >= SURE else ""
        for prompt, (code, probability) in likeliest.items()
    }


def language_probability(text: str, codes: Sequence[str]) -> tuple[float, str]:
    """Probability that a text is in one of the languages (ISO 639-1 codes), and the likeliest language of all.

    Raises: ConfigError when py3langid is not installed, or does not know a language.
    """
    model = _model()
    known = {str(label) for label in model.labels}
    if unknown := sorted(set(codes) - known):
        raise ConfigError(f"filters.languages: {', '.join(unknown)} is not known; known are {', '.join(sorted(known))}")
    ranked = [(str(code), float(probability)) for code, probability in model.rank(text)]
    return sum(probability for code, probability in ranked if code in codes), ranked[0][0]


@lru_cache(maxsize=1)
def _model() -> Any:
    """The model, loaded once, which gives probabilities. Raises: ConfigError when py3langid is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError(f"filters.languages needs py3langid: {INSTALL}; or leave it empty") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
