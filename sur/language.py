"""The model that tells languages apart: py3langid's (97 languages; 5 MB, offline, no pickle), loaded once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


@lru_cache(maxsize=1)
def identifier() -> Any:
    """The loaded model, with probabilities. Raises: ImportError when the extra `language` is not installed."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
