"""Quantities and features as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sur.cache import ArraySpec

_FINGERPRINT_FIELDS = ("weights", "text_encoder", "denoiser")  # of an identity
_MOST_ARRAYS = 4  # arrays that are named one by one


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
