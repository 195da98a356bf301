"""A feature in a few words, for tables: what lies in it, and what made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache import ArraySpec

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
