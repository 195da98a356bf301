"""Validation while training: losses on held-back rows, and the best of them for stopping early."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from sur.cache import Loader, Manifest, NoRows, Store
from sur.training.batches import NeededFeatures, open_loader, row_batches
from sur.training.trainer import Training

if TYPE_CHECKING:
    from sur.config.run import RunConfig

_log = logging.getLogger(__name__)


def open_validation(store: Store, config: RunConfig, manifest: Manifest | None) -> Loader | None:
    """The loader of the held-back rows; None when there are none, with a warning if there should be some."""
    if config.train.validation_fraction == 0:
        return None
    try:
        return open_loader(store, config, "validation", manifest)
    except NoRows as error:
        _log.warning(
            "training without validation: the split has too few rows (%s). That is to be expected of a small data set; "
            "train.validation_fraction=0 says so", error,
        )  # fmt: skip
        return None


def validate(loader: Loader, features: NeededFeatures, training: Training) -> dict[str, float]:
    """Losses on held-back rows, the same ones with the same draws every time."""
    batches = islice(loader.batches(0), training.config.validation_batches)
    return training.validate(row_batches(batches, features, training.config.seed))


class Best(NamedTuple):
    """The best validation so far, and the number of validations since.

    `names` are the losses that were compared. Sums over different losses cannot be compared, so the best starts anew
    when a loss sets in (a teacher begins to teach, denoising has its first step).
    """

    step: int
    value: float
    names: tuple[str, ...]
    since: int = 0

    def as_json(self) -> dict:
        """The form in which a checkpoint keeps it; `Best.from_json` is the inverse."""
        return self._asdict()

    @classmethod
    def from_json(cls, content: dict | None) -> Best | None:
        """Inverse of `as_json`; None for None."""
        return None if content is None else cls(**{**content, "names": tuple(content["names"])})


def update_best(best: Best | None, step: int, losses: Mapping[str, float]) -> Best:
    """The best validation once that of a later step is known as well."""
    new = Best(step, math.fsum(losses.values()), tuple(sorted(losses)))
    if best is None or new.names != best.names or new.value < best.value or math.isnan(best.value):
        return new
    return best._replace(since=best.since + 1)
