"""Early stop: when validations no longer improve, and which step was the best."""

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

    def after(self, step: int, losses: Mapping[str, float]) -> Best:
        """The best once the validation of a later step is known as well."""
        new = first(step, losses)
        if new.names != self.names or new.value < self.value or math.isnan(self.value):
            return new
        return self._replace(since=self.since + 1)

    def as_json(self) -> dict:
        """What a checkpoint keeps of it; `Best.from_json` undoes it."""
        return self._asdict()

    @classmethod
    def from_json(cls, content: dict | None) -> Best | None:
        """Undo `as_json`; None for none."""
        return None if content is None else cls(**{**content, "names": tuple(content["names"])})


def first(step: int, losses: Mapping[str, float]) -> Best:
    """The best when there is but one validation."""
    return Best(step, math.fsum(losses.values()), tuple(sorted(losses)))
