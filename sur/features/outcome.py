"""What became of the rows once everything is encoded: values, losses with their reasons, prompts that were cut.

It is read from the store's receipts, so that it holds for the whole data set however many runs made the features.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sur.cache import Store
from sur.config.run_folder import RunFolder
from sur.data import Quarantined, Row, open_rows, write_quarantine
from sur.features.partition import NO_ITEM, may_pass
from sur.support.errors import NothingEncoded

if TYPE_CHECKING:
    from sur.config.data import DataConfig
    from sur.config.run import RunConfig

_log = logging.getLogger(__name__)

LEFT = "its partition waits for the extraction of the data set that its pictures belong to"


@dataclass(frozen=True)
class FeatureOutcome:
    """One feature of a data set.

    rows: that have what the encoder reads, whether they got a value or not. lost: slot -> the reason why such a row
    has no value. prompts: distinct ones that were encoded, those of rows that have left the data set included. cut: of
    these, the ones that lost their end to the limit of tokens.
    """

    feature: str
    kind: str
    rows: int
    lost: Mapping[int, str]
    prompts: int = 0
    cut: int = 0

    def __str__(self) -> str:
        parts = [f"{self.feature}: {self.rows - len(self.lost)} of {self.rows} rows encoded"]
        if self.lost:
            parts.append(f"{len(self.lost)} without a value (the first: {next(iter(self.lost.values()))})")
        if self.prompts:
            parts.append(f"{self.cut} of {self.prompts} prompts cut ({self.cut / self.prompts:.0%})")
        return ", ".join(parts)


def outcomes(store: Store, dataset: str, features: Iterable[str]) -> list[FeatureOutcome]:
    """What became of a data set's rows in each of the features, in their order."""
    size = store.rows_per_partition
    members = store.members(dataset)
    partitions = np.unique(np.flatnonzero(members) // size).tolist()
    made = []
    for name in features:
        reasons: dict[int, str] = {}
        encoded = cut = 0
        for partition, receipt in zip(partitions, store.receipts(name, partitions), strict=True):
            first = partition * size
            if receipt is None:
                reasons |= {first + row: LEFT for row in np.flatnonzero(members[first : first + size]).tolist()}
                continue
            reasons |= {first + row: why for row, why in sorted(receipt.missing.items()) if members[first + row]}
            if "truncated" in receipt.stats:
                encoded, cut = encoded + receipt.stats.get("encoded", 0), cut + receipt.stats["truncated"]
        lost = {slot: reason for slot, reason in reasons.items() if not reason.startswith(NO_ITEM)}
        rows = int(members.sum()) - (len(reasons) - len(lost))
        made.append(FeatureOutcome(name, store.spec(name).kind, rows, lost, encoded, cut))
    return made


def conclude(config: RunConfig, features: Iterable[str], quarantined: Sequence[Quarantined]) -> list[FeatureOutcome]:
    """What became of the rows; adds those that were lost while encoding to the quarantine file.

    Features with lost rows or cut prompts are logged as warnings, so that every flow says so.

    quarantined: rows that the check of the source left out.
    """
    store = Store.open(config.store.path)
    made = outcomes(store, config.data.slug, features)
    losses = [outcome for outcome in made if outcome.lost]
    if losses:
        lost = _lost_rows(store, config.data, losses)
        write_quarantine(RunFolder(config.run_dir).quarantine, [*quarantined, *lost])
    for outcome in made:
        if outcome.lost:
            _log.warning("%s; see %s", outcome, RunFolder(config.run_dir).quarantine)
        elif outcome.cut:
            _log.warning("%s", outcome)
    return made


def require_values(config: RunConfig, made: Iterable[FeatureOutcome]) -> None:
    """Raises: NothingEncoded when a feature has no value of any row; what other features have is kept."""
    for outcome in made:
        if outcome.rows and len(outcome.lost) == outcome.rows:
            reason = next(iter(outcome.lost.values()))
            raise NothingEncoded(
                f"feature {outcome.feature}: all {outcome.rows} rows are without a value (the first: {reason}); "
                f"{_remedy(config.data, outcome, reason)}. Each row is in {RunFolder(config.run_dir).quarantine}; the "
                "other features are kept"
            )


def _lost_rows(store: Store, data: DataConfig, losses: Iterable[FeatureOutcome]) -> list[Quarantined]:
    """The lost rows of features, with their places in the source."""
    slots = sorted({slot for outcome in losses for slot in outcome.lost})
    wanted = set(slots)
    places = store.places(data.slug)
    partitions = sorted({slot // store.rows_per_partition for slot in slots})
    rows = {row.slot: row for partition in partitions for row in store.rows(partition) if row.slot in wanted}
    keys = {slot: (row.simple, row.complex, places.get(slot, row.image)) for slot, row in rows.items()}
    sought = set(keys.values())
    origins: dict[tuple[str, str, str], Row] = {}
    for row in open_rows(data):
        if isinstance(row, Row) and (key := (row.simple, row.complex, row.image)) in sought:
            origins.setdefault(key, row)
    quarantined = []
    for outcome in losses:
        for slot, reason in outcome.lost.items():
            origin = origins.get(keys[slot])
            location = origin.location if origin else rows[slot].image or rows[slot].id.hex()
            position = origin.position if origin else -1
            remedy = _remedy(data, outcome, reason)
            quarantined.append(Quarantined(position, location, outcome.feature, reason, remedy))
    return quarantined


def _remedy(data: DataConfig, outcome: FeatureOutcome, reason: str) -> str:
    """What the user can do about a row that has no value."""
    if reason == LEFT:
        return "extract that data set into this store, then run this command again"
    if may_pass(reason, data.image_column or "image"):
        return "put the picture back and run the same command again"
    if " is " in reason and " such values)" in reason:
        wider = f"{outcome.kind}.compute_dtype=float32 and {outcome.kind}.store_dtype=float32"
        return f"set {wider}, with another {outcome.kind}.slug or after `sur drop STORE {outcome.feature}`"
    return "replace what the reason names, or remove the row"
