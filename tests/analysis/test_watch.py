"""The watch of a store goes on whatever it meets, and says so."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cache_samples import STATES, extract, sample_rows

from sur.analysis.store.watch import StoreWatch
from sur.cache import Store


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so; a watch that has ended never makes it so."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("the watch did not get there in 10 s")


@pytest.mark.parametrize("error", [RuntimeError("of no kind that was foreseen"), OSError(5, "Input/output error")])
def test_a_watch_outlives_any_error_names_it_and_shows_what_comes_after(tmp_path, monkeypatch, caplog, error):
    extract(tmp_path / "store.zarr", 8)
    watch = StoreWatch(tmp_path / "store.zarr", seconds=0.01)
    whole = watch.refresh

    def broken():
        raise error

    monkeypatch.setattr(watch, "refresh", broken)
    watch.start()
    wait_for(lambda: str(error) in watch.trouble)
    assert str(error) in caplog.text
    Store.open(tmp_path / "store.zarr", writable=True).add_rows(sample_rows(8, first=50))
    monkeypatch.setattr(watch, "refresh", whole)
    wait_for(lambda: len(watch.table.ids) == 16)
    assert watch.trouble == ""
    watch.stop()


def test_a_watch_names_a_lost_receipt_and_keeps_its_rows(tmp_path):
    path = tmp_path / "store.zarr"
    extract(path, 24)
    watch = StoreWatch(path, seconds=0.01)
    watch.start()
    wait_for(lambda: len(watch.table.ids) == 24)
    (path / "receipts/rows/00001/zarr.json").unlink()
    watch.store = Store.open(path)  # as after a change of a feature
    wait_for(lambda: "00001" in watch.trouble)
    assert len(watch.table.ids) == 24 and STATES.name in watch.table.features
    watch.stop()
