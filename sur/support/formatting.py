"""Quantities and features as text for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sur.cache import ArraySpec

# What a terminal obeys or a reader does not see: control characters (C0 but for tab and line feed, DEL, C1), marks that
# turn the direction of text around, line separators that few programs take for one, and halves of characters.
_UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FINGERPRINT_FIELDS = ("weights", "text_encoder", "denoiser")  # of an identity
_MOST_ARRAYS = 4  # arrays that are named one by one


def visible(text: str) -> str:
    """A text for a terminal: characters that would steer the terminal, or hide or turn text, as \\uXXXX.

    JSON stays what it was, since its strings may be written so.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def format_bytes(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least 1."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_count(count: int) -> str:
    """A count, in millions from one million on."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:,.0f} M" if count >= 1e9 else f"{count / 1e6:.4g} M"


def format_seconds(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_arrays(arrays: Mapping[str, ArraySpec]) -> str:
    """A feature's arrays with dtype and shape; of many arrays (a read-out's) only their number."""
    if len(arrays) > _MOST_ARRAYS:
        return f"{len(arrays)} arrays"
    return ", ".join(f"{name} {spec.dtype}{list(spec.shape)}" for name, spec in arrays.items())


def format_source(kind: str, identity: Mapping[str, Any]) -> str:
    """The model that made a feature, the start of its weights' fingerprint, and the layer."""
    weights = str(next((identity[key] for key in _FINGERPRINT_FIELDS if identity.get(key)), ""))[:8]
    layer = f"layer {identity['layer']}" if "layer" in identity else ""
    return " ".join(filter(None, (str(identity.get("model", kind)), weights, layer)))
