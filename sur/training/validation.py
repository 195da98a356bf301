"""Validation while training: held-out losses, and stopping early."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


class Best(NamedTuple):
    """The best validation so far, and how many have come since.

    `names` are the losses that were compared: their sum says nothing against a sum over others, so the best starts
    anew when a loss sets in (a teacher begins to teach, denoising has its first step).
    """

    step: int
    value: float
    names: tuple[str, ...]
    since: int = 0

    def as_json(self) -> dict:
        """What a checkpoint keeps of it; `Best.from_json` undoes it."""
        return self._asdict()

    @classmethod
    def from_json(cls, content: dict | None) -> Best | None:
        """Undo `as_json`; None for none."""
        return None if content is None else cls(**{**content, "names": tuple(content["names"])})


def better(best: Best | None, step: int, losses: Mapping[str, float]) -> Best:
    """The best once the validation of a later step is known as well."""
    new = Best(step, math.fsum(losses.values()), tuple(sorted(losses)))
    if best is None or new.names != best.names or new.value < best.value or math.isnan(best.value):
        return new
    return best._replace(since=best.since + 1)
