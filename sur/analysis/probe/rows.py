"""The rows of a probe, their folds, and the batches in which features are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sur.analysis.probe.folds import Fold, folds_by_rows, folds_by_words, numbered, prompt_groups
from sur.cache import Batch, Loader, Manifest, NoRows, Order, RowWise, Selection, Store, Windowed
from sur.config.probe import ProbeConfig
from sur.support.errors import ConfigError

LEAST_ROWS_A_FOLD = 8


@dataclass(frozen=True)
class ProbeRows:
    """Rows that have every feature, by slot, and the folds in which they are held back.

    complexes: the same number for rows of equal complex prompts. folds: by the split's name.
    """

    ids: np.ndarray
    slots: np.ndarray
    complexes: np.ndarray
    folds: dict[str, list[Fold]]


def probe_rows(store: Store, features: list[str], config: ProbeConfig) -> ProbeRows:
    """The rows of today's data sets that have a value of every feature, at most `max_rows` of them.

    Raises:
        ConfigError: too few rows or groups to hold anything back.
        IncompleteFeature: a feature is not extracted to its end.
    """
    try:
        slots = Loader(store, features, batch_size=1, selection=Selection(split="all"), reader=RowWise).slots
    except NoRows:
        slots = np.array([], dtype=np.int64)
    if datasets := store.datasets():
        in_a_dataset = np.any([store.members(name) for name in datasets], axis=0)
        slots = slots[in_a_dataset[slots]]
    if len(slots) > config.max_rows:
        slots = np.sort(np.random.default_rng([config.seed, 0]).permutation(slots)[: config.max_rows])
    simple, complexes = _prompts(store, slots)
    groups = prompt_groups(simple, complexes)
    least = LEAST_ROWS_A_FOLD * config.folds
    if len(np.unique(groups)) < least:
        raise ConfigError(
            f"{store.path} has {len(slots)} rows with all of {', '.join(features)}, in {len(np.unique(groups))} groups "
            f"of equal prompts; a probe needs {least} groups. Extract more rows that have a complex prompt"
        )
    by_words = folds_by_words(simple, groups, config)
    folds: dict[str, list[Fold]] = {"words": by_words} if by_words else {}
    folds["rows"] = folds_by_rows(groups, config)
    return ProbeRows(store.row_ids()[slots], slots, numbered(complexes), folds)


def probe_batches(
    store: Store, feature: str, rows: ProbeRows, config: ProbeConfig
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches of a feature in a random order of the rows, each with its rows' places in `rows`; reads once."""
    spec = store.spec(feature)
    mixed = any(array.packed for array in spec.arrays.values()) or not store.random_reads
    groups = rows.slots // store.rows_per_partition
    manifest = Manifest(rows.ids, groups, window=8 if mixed else 0, features={})
    loader = Loader(
        store,
        [feature],
        batch_size=config.batch_rows,
        selection=Selection(split="all", manifest=manifest),
        order=Order(seed=config.seed, drop_last=False),
        reader=Windowed if mixed else RowWise,
    )
    for batch in loader.batches():
        yield np.searchsorted(rows.slots, batch.slots), batch


def finite_numpy(values: Tensor, feature: str, batch: Batch) -> np.ndarray:
    """The values as numpy.

    Raises: ConfigError that names feature and slot of a row with a value that is not finite.
    """
    bad = ~torch.isfinite(values).flatten(1).all(1)
    if bool(bad.any()):
        slot = int(batch.slots[bad.numpy()][0])
        raise ConfigError(
            f"{feature}: the row in slot {slot} has values that are not finite; `sur verify --repair` and `sur "
            "extract` compute it anew, `sur drop` removes the feature"
        )
    return values.numpy()


def _prompts(store: Store, slots: np.ndarray) -> tuple[list[str], list[str]]:
    """Simple and complex prompts of the rows in some slots."""
    chosen = np.zeros(store.n_partitions * store.rows_per_partition, dtype=bool)
    chosen[slots] = True
    simple, complexes = [], []
    for partition in np.unique(slots // store.rows_per_partition).tolist():
        for row in store.rows(partition):
            if chosen[row.slot]:
                simple.append(row.simple)
                complexes.append(row.complex)
    return simple, complexes
