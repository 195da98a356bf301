"""Which language a text is in, for a build's filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sur.errors import ConfigError
from sur.language import identifier


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
        raise ConfigError(
            "filters.languages needs py3langid: pip install 'sur-feature-cache[language]'; or leave it empty"
        ) from None
