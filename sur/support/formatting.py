"""Quantities as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sur.cache import ArraySpec


def format_bytes(count: float) -> str:
    """Bytes in a unit that people read."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_count(count: int) -> str:
    """A number of things, from a million on in millions."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:,.0f} M" if count >= 1e9 else f"{count / 1e6:.4g} M"


def format_seconds(seconds: float) -> str:
    """A duration in a unit that people read."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


WEIGHTS = ("weights", "text_encoder", "denoiser")  # fields of an identity that hold a fingerprint


def arrays_of(arrays: Mapping[str, ArraySpec]) -> str:
    """What lies in a feature; of many arrays (a read-out's) only how many."""
    if len(arrays) > 4:
        return f"{len(arrays)} arrays"
    return ", ".join(f"{name} {spec.dtype}{list(spec.shape)}" for name, spec in arrays.items())


def maker_of(kind: str, identity: Mapping[str, Any]) -> str:
    """The model that made a feature, the start of its weights' fingerprint, and the layer."""
    weights = str(next((identity[key] for key in WEIGHTS if identity.get(key)), ""))[:8]
    layer = f"layer {identity['layer']}" if "layer" in identity else ""
    return " ".join(filter(None, (str(identity.get("model", kind)), weights, layer)))
