"""The protocol of the encoders, the result of encoding, and the cast to the stored dtype."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sur.cache import ArraySpec, FeatureSpec


@dataclass(frozen=True)
class EncodedItems:
    """The values of n items that one call of `encode` returns.

    values: feature name -> array name -> (n, *shape); bfloat16 as its uint16 bit patterns.
    bad: item index -> reason; such an item's values are zeros and must not be stored.
    stats: counts (tokens, truncated, padded_tokens, ...), summable over calls.
    """

    values: dict[str, dict[str, np.ndarray]]
    bad: dict[int, str] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)


@runtime_checkable
class Encoder(Protocol):
    """A large frozen model that turns prompts or images into features; weights load on first `encode`."""

    kind: str
    consumes: str

    @property
    def key(self) -> str:
        """Name of this encoder in the flow and its reports: llm, text.simple, text.complex or vae."""
        ...

    def shapes(self) -> dict[str, dict[str, ArraySpec]]:
        """Arrays of each feature, from the model's config alone (weights need not be there)."""
        ...

    def specs(self) -> list[FeatureSpec]:
        """Features with their identities; reads configs and fingerprints, loads no weights."""
        ...

    def encode(self, items: Sequence[Any], names: Collection[str] | None = None) -> EncodedItems:
        """Encode items into the named features (all of this encoder's when None)."""
        ...

    def close(self) -> None:
        """Forget the weights; the next `encode` loads them again."""
        ...


def checked_names(asked: Collection[str] | None, known: Sequence[str]) -> list[str]:
    """The feature names that a caller asked for (None: all), in the encoder's own order.

    Raises: ValueError for a name of another encoder.
    """
    if asked is None:
        return list(known)
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise ValueError(f"this encoder makes {list(known)}, not {unknown}; ask only for names from specs()")
    return [name for name in known if name in asked]


def cast_to_stored(values: Tensor, dtype: str) -> tuple[np.ndarray, dict[int, str]]:
    """Values (n, ...) in the stored dtype; and for each item that is not finite after the cast, index -> reason.

    bfloat16 comes back as uint16 bit patterns. A value that overflows in the stored dtype counts as
    not finite, so a float16 store can never silently hold an infinity.
    """
    cast = values.detach().to("cpu", getattr(torch, dtype)).contiguous()
    faults: dict[int, str] = {}
    for item in (~torch.isfinite(cast).flatten(1).all(dim=1)).nonzero().flatten().tolist():
        places = (~torch.isfinite(cast[item])).nonzero()
        first = places[0].tolist()
        faults[item] = f"{float(cast[item][tuple(first)])} at {first} in {dtype} ({len(places)} such values)"
    return (cast.view(torch.uint16) if dtype == "bfloat16" else cast).numpy(), faults
