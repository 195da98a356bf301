"""Which rows come when, and that they are the right ones."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest
import torch
from cache_samples import (
    ALL,
    LATENTS,
    STATES,
    extract,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
    sample_values,
)

from sur.cache import CacheError, IncompleteFeature, Loader, Order, Resident, RowWise, Selection, Store, Windowed
from sur.cache.readers import Reader, Window
from sur.cache.sampling import in_split, permutation, windowed_permutation

ROWS = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("loader") / "store.zarr"
    extract(path, ROWS)
    return Store.open(path, writable=True)


def slots(batches) -> list[list[int]]:
    return [batch.slots.tolist() for batch in batches]


@pytest.mark.parametrize("reader", [Resident, RowWise])
def test_batches_hold_the_stored_values_of_their_rows(store, reader):
    loader = Loader(store, [STATES.name], batch_size=7, selection=ALL, reader=reader)
    rows = store.rows()
    for batch in loader.batches():
        expected = sample_values(STATES, [rows[slot] for slot in batch.slots])
        states = batch.arrays[STATES.name + "/states"]
        assert states.dtype == torch.bfloat16 and states.shape == (7, 300)
        assert np.array_equal(states.view(torch.uint16).numpy(), expected["states"])
        assert np.array_equal(batch.arrays[STATES.name + "/length"].numpy(), expected["length"])
        assert [id.tobytes() for id in batch.ids] == [rows[slot].id for slot in batch.slots]


def test_an_epoch_holds_each_row_once_and_the_next_in_another_order(store):
    loader = Loader(store, [STATES.name], batch_size=4, selection=ALL)
    first, second = slots(loader.batches(0)), slots(loader.batches(1))
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(ROWS))
    assert first != second
    assert slots(Loader(store, [STATES.name], batch_size=4, selection=ALL, order=Order(seed=1)).batches(0)) != first


def test_the_order_does_not_change_between_versions():
    assert permutation(10, seed=3, epoch=5).tolist() == permutation(10, 3, 5).tolist()
    assert permutation(8, seed=0, epoch=0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]


def test_resuming_in_the_middle_of_an_epoch_goes_on_exactly_there(store):
    loader = Loader(store, [STATES.name], batch_size=8)
    whole = list(islice(loader.forever(), 15))
    at = whole[9]
    assert at.epoch == 1
    resumed = Loader(store, [STATES.name], batch_size=8).forever(at.epoch, at.offset)
    assert slots(islice(resumed, 6)) == slots(whole[9:])


def test_ranks_share_an_epoch_without_overlap(store):
    alone = Loader(store, [STATES.name], batch_size=12, selection=ALL)
    ranks = [
        Loader(store, [STATES.name], batch_size=4, selection=ALL, order=Order(rank=r, world_size=3)) for r in range(3)
    ]
    for whole, *parts in zip(alone.batches(2), *(rank.batches(2) for rank in ranks), strict=True):
        assert whole.slots.tolist() == [slot for part in parts for slot in part.slots.tolist()]


def test_the_last_batch_is_dropped_or_shared(store):
    def sizes(**options) -> list[int]:
        loader = Loader(store, [STATES.name], batch_size=16, selection=ALL, order=Order(**options))
        return [len(batch.slots) for batch in loader.batches()]

    assert sizes() == [16, 16, 16]
    assert sizes(drop_last=False) == [16, 16, 16, 12]
    assert sizes(drop_last=False, world_size=2, rank=1) == [16, 14]
    assert sizes(world_size=3, rank=2) == [16]


def test_splits_are_disjoint_complete_and_unmoved_by_new_rows(store):
    train, validation = (
        Loader(store, [STATES.name], batch_size=1, selection=Selection(split=split, validation_fraction=0.2))
        for split in ("train", "validation")
    )
    assert sorted([*train.slots, *validation.slots]) == list(range(ROWS))
    assert 2 <= validation.n_rows <= 24
    ids = np.frombuffer(b"".join(row.id for row in sample_rows(5000)), np.uint8).reshape(-1, 16)
    chosen = in_split(ids, "validation", 0.1)
    assert 0.08 < chosen.mean() < 0.12
    assert np.array_equal(in_split(ids[:100], "validation", 0.1), chosen[:100])


def test_rows_without_a_required_feature_are_skipped(store):
    loader = Loader(store, [STATES.name, LATENTS.name], batch_size=2, selection=ALL)
    assert loader.slots.tolist() == [row.slot for row in store.rows() if row.image]


@pytest.mark.parametrize("reader", [Resident, RowWise])
def test_rows_without_an_optional_feature_are_marked_and_zero(store, reader):
    has = {row.slot for row in store.rows() if row.image}
    loader = Loader(store, [STATES.name], optional=[LATENTS.name], batch_size=10, selection=ALL, reader=reader)
    for batch in loader.batches():
        present = batch.present[LATENTS.name]
        assert present.dtype == torch.bool and batch.present[STATES.name].all()
        assert present.tolist() == [slot in has for slot in batch.slots]
        mean = batch.arrays[LATENTS.name + "/mean"]
        assert mean.dtype == torch.float16 and mean.shape == (10, 2, 4, 8, 8)
        assert not mean[~present].any() and mean[present].flatten(1).any(1).all()


def test_the_manifest_depends_on_rows_and_values_alone(store):
    def digest(*features: str, **options) -> str:
        return Loader(store, features, batch_size=2, **options).manifest.digest

    other = {"selection": Selection(split="validation"), "order": Order(seed=9), "reader": RowWise}
    assert digest(STATES.name) == digest(STATES.name, **other)
    assert len({digest(STATES.name), digest(LATENTS.name), digest(STATES.name, order=Order(window=3))}) == 3


@pytest.mark.parametrize("window", [1, 3])
def test_a_window_serves_each_row_once_with_its_values_and_mixes_so_many_partitions(store, window):
    rows = store.rows()

    def loader(reader: type[Reader]) -> Loader:
        order = Order(window=window, drop_last=False)
        return Loader(store, [STATES.name], batch_size=5, selection=ALL, order=order, reader=reader)

    served = list(loader(Windowed).batches(1))
    for batch in served:
        expected = sample_values(STATES, [rows[slot] for slot in batch.slots])["states"]
        assert np.array_equal(batch.arrays[STATES.name + "/states"].view(torch.uint16).numpy(), expected)
    order = np.concatenate([batch.slots for batch in served])
    assert sorted(order.tolist()) == list(range(ROWS))
    windows = [set((order[i : i + 8 * window] // 8).tolist()) for i in range(0, ROWS - ROWS % (8 * window), 8 * window)]
    assert all(len(partitions) <= window + 1 for partitions in windows)  # the last partition is half full
    assert slots(loader(Resident).batches(1)) == slots(loader(RowWise).batches(1)) == slots(served)
    assert slots(served) != slots(loader(Windowed).batches(2))
    assert slots(loader(Windowed).batches(1, offset=7)) == slots(served[7:])


def test_a_window_is_all_that_is_held(store, monkeypatch):
    loader = Loader(store, [STATES.name], batch_size=2, selection=ALL, order=Order(window=2), reader=Windowed)
    counts = []
    gather = Window.gather

    def counted(window, positions):
        values = gather(window, positions)
        counts.append(len(window.partitions))
        return values

    monkeypatch.setattr(Window, "gather", counted)
    list(loader.batches())
    assert (
        max(counts) <= 6 and min(counts) >= 2
    )  # the window served, the next, and one more where a batch straddles two


def test_abandoned_batches_leave_no_thread(store):
    for window, reader in ((0, RowWise), (2, Windowed)):
        order = Order(window=window)
        loader = Loader(store, [STATES.name], batch_size=2, selection=ALL, order=order, reader=reader)
        batches = loader.batches()
        next(batches)
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("cache-")]


def test_the_order_of_windows_does_not_change_between_versions():
    partitions = np.repeat(np.arange(4), 2)
    order, windows = windowed_permutation(partitions, seed=0, epoch=0, window=2)
    assert order.tolist() == [0, 1, 5, 4, 2, 3, 6, 7] and windows.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_an_unfinished_feature_is_refused_optional_or_not(tmp_path):
    extract(tmp_path / "s.zarr", 16)
    store = Store.open(tmp_path / "s.zarr", writable=True)
    store.discard(LATENTS.name, 1)
    with pytest.raises(IncompleteFeature, match="1 of 2 partitions"):
        Loader(store, [LATENTS.name], batch_size=1)
    with pytest.raises(IncompleteFeature, match="1 of 2 partitions"):
        Loader(store, [STATES.name], optional=[LATENTS.name], batch_size=1)


def test_a_loader_without_a_full_batch_says_why(store):
    with pytest.raises(CacheError, match=r"60 of 60 rows.*a batch takes 64 x 1"):
        Loader(store, [STATES.name], batch_size=64, selection=ALL)
    with pytest.raises(ValueError, match="batch_size >= 1"):
        Loader(store, [STATES.name], batch_size=0)
