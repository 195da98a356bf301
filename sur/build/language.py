"""Which language a text is in, by py3langid (97 languages, a model of 4.6 MB in the package)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sur.errors import ConfigError


def language_shares(text: str, languages: Sequence[str]) -> tuple[float, str]:
    """Probability that a text is in one of the languages (ISO 639-1 codes), and the most likely one of all.

    Raises: ConfigError when py3langid is not installed, or does not know a language.
    """
    identifier = _identifier()
    known = {str(label) for label in identifier.labels}
    if unknown := sorted(set(languages) - known):
        raise ConfigError(f"filters.languages: {', '.join(unknown)} is not known; known are {', '.join(sorted(known))}")
    ranked = [(str(code), float(share)) for code, share in identifier.rank(text)]
    return sum(share for code, share in ranked if code in languages), ranked[0][0]


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError(
            "filters.languages needs py3langid: pip install 'sur-feature-cache[language]'; or leave it empty"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
