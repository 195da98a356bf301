"""Rows come, change and go; features too; and a training of long ago can still be repeated."""

from __future__ import annotations

import json
import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_samples import (
    ALL,
    LATENTS,
    NULL,
    STATES,
    extract,
    file_bytes,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
    sample_values,
)

from sur.cache import (
    ArraySpec,
    BadValues,
    CacheError,
    FeatureSpec,
    IncompleteFeature,
    Loader,
    Manifest,
    Order,
    Resident,
    RowWise,
    Selection,
    Store,
    Windowed,
    compact,
    row_id,
)
from sur.cache.format import metadata
from sur.cache.storage.local import LocalStorage


@pytest.fixture
def store(tmp_path) -> Store:
    extract(tmp_path / "store.zarr", 28)
    store = Store.open(tmp_path / "store.zarr", writable=True)
    store.set_members("data", [row.id for row in store.rows()])
    return store


def serve(store: Store, **selection) -> list[tuple[bytes, bytes]]:
    """(ids, values) of every batch of two epochs."""
    loader = Loader(store, [STATES.name], batch_size=5, selection=Selection(**selection))
    return [
        (batch.ids.tobytes(), batch.arrays[f"{STATES.name}/states"].view(torch.uint16).numpy().tobytes())
        for epoch in (0, 1)
        for batch in loader.batches(epoch)
    ]


def test_an_edited_row_is_a_new_row_and_the_old_one_is_served_no_more(store):
    rows = store.rows()
    changed = replace(rows[3], simple="another sentence", slot=-1, id=row_id("another sentence", rows[3].complex, None))
    shards = {path: path.read_bytes() for path in store.path.rglob("features/*/*/c.*")}
    assert store.add_rows([changed]) == 1
    ids = [changed.id if row is rows[3] else row.id for row in rows]
    assert store.set_members("data", ids) == (1, 28)
    assert store.pending(STATES.name) == [4]  # only the new row's partition
    extract(store.path, 28)
    assert all(path.read_bytes() == data for path, data in shards.items())
    served = {id.tobytes() for id in Loader(store, [STATES.name], batch_size=1, selection=Selection("data", "all")).ids}
    assert served == set(ids)


def test_removed_rows_are_skipped_and_come_back_for_nothing(store):
    ids = [row.id for row in store.rows()]
    before = file_bytes(store.path)
    assert store.set_members("data", ids[5:]) == (5, 23)
    assert Loader(store, [STATES.name], batch_size=1, selection=Selection("data", "all")).slots.tolist() == list(
        range(5, 28)
    )
    assert store.set_members("data", ids) == (0, 28)
    assert file_bytes(store.path) == before
    assert store.verify() == []


def test_data_sets_share_rows_and_know_nothing_of_each_other(store):
    ids = [row.id for row in store.rows()]
    store.set_members("other", ids[10:20])
    store.set_members("data", ids[:12])
    assert store.datasets() == ["data", "other"]
    assert np.flatnonzero(store.members("other")).tolist() == list(range(10, 20))
    with pytest.raises(CacheError, match=r"no data set 'mine' \(it holds: data, other\)"):
        Loader(store, [STATES.name], batch_size=1, selection=Selection("mine"))
    with pytest.raises(BadValues, match="1 of its rows are not in the store"):
        store.set_members("other", [*ids[:3], bytes(range(16))])
    with pytest.raises(BadValues, match="must match"):
        store.set_members("../other", ids)
    assert int(store.members("other").sum()) == 10


def test_new_rows_belong_to_no_data_set_until_it_is_said(store):
    store.add_rows(sample_rows(8, first=200))
    assert len(store.members("data")) == 40 and int(store.members("data").sum()) == 28
    loader = Loader(store, [STATES.name], batch_size=1, selection=Selection("data", "all"))
    assert loader.n_rows == 28  # though the new partition has no values yet


def test_a_training_is_repeated_from_its_manifest_whatever_came_and_went(store, tmp_path):
    manifest = Loader(store, [STATES.name], batch_size=5, selection=Selection("data")).manifest
    path = manifest.save(tmp_path / "run" / "manifest.safetensors")
    served = serve(store, dataset="data")
    store.add_rows(sample_rows(12, first=100))
    store.set_members("data", [row.id for row in store.rows()[9:]])
    extract(store.path, 28)
    grown = Store.open(store.path, writable=True)
    recorded = Manifest.load(path)
    assert recorded.digest == manifest.digest
    assert serve(grown, dataset="data") != served
    assert serve(grown, manifest=recorded) == served

    compacted = Store.create(tmp_path / "compact.zarr", 16)
    assert compact(grown, compacted, [recorded]) == 0
    assert serve(compacted, manifest=recorded) == served


def test_a_manifest_is_refused_where_its_rows_or_values_are_not(store, tmp_path):
    manifest = Loader(store, [STATES.name], batch_size=1).manifest
    fewer = Store.create(tmp_path / "fewer.zarr", 8)
    store.set_members("data", [row.id for row in store.rows()[4:]])
    assert compact(store, fewer) == 4
    with pytest.raises(CacheError, match="4 of the manifest's 28 rows are not in"):
        Loader(fewer, [STATES.name], batch_size=1, selection=Selection(manifest=manifest))
    other = Store.create(tmp_path / "other.zarr", 8)
    other.add_rows(sample_rows(28))
    other.ensure_feature(STATES)
    for partition in range(4):
        values = sample_values(STATES, other.rows(partition))
        values["states"][0, 0] ^= 1
        other.write_partition(STATES.name, partition, values)
    with pytest.raises(CacheError, match=rf"values of {STATES.name} in .* are not those of the manifest"):
        Loader(other, [STATES.name], batch_size=1, selection=Selection(manifest=manifest))


def test_a_file_that_is_not_a_manifest_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no manifest at"):
        Manifest.load(tmp_path / "nothing")
    (tmp_path / "x").write_bytes(b"not safetensors at all")
    with pytest.raises(CacheError, match="is not the manifest"):
        Manifest.load(tmp_path / "x")


def test_compacting_keeps_values_reasons_and_assets_and_leaves_the_rest(store, tmp_path):
    ids = [row.id for row in store.rows()]
    for first in (300, 400, 500):  # three nights of one row each
        store.add_rows(sample_rows(1, first=first))
    night = [row.id for row in store.rows()[28:]]
    store.set_members("data", [*ids[8:], *night])
    extract(store.path, 28)
    source = Store.open(store.path)
    assert source.n_partitions == 7
    compacted = Store.create(tmp_path / "compact.zarr", 8)
    assert compact(source, compacted) == 8
    assert (compacted.n_rows, compacted.n_partitions, compacted.datasets()) == (23, 3, ["data"])
    assert [row.id for row in compacted.rows()] == [*ids[8:], *night]
    for spec in (STATES, LATENTS):
        remaining = np.array([slot for slot in np.flatnonzero(source.filled()) if slot >= 8])
        for name, values in compacted.read(spec.name).items():
            assert np.array_equal(values, source.read(spec.name, remaining)[name])
    reasons = {row.id: source.missing(LATENTS.name)[row.slot] for row in source.rows(1) if not row.image}
    missing = compacted.missing(LATENTS.name).items()
    assert reasons.items() <= {compacted.rows()[slot].id: why for slot, why in missing}.items()
    assert np.array_equal(compacted.read_asset(NULL.name)["states"], source.read_asset(NULL.name)["states"])
    assert compacted.verify() == []
    bytes_of = {path: sum(map(len, file_bytes(path).values())) for path in (source.path, compacted.path)}
    assert bytes_of[compacted.path] < bytes_of[source.path]


def test_compacting_goes_on_where_it_stopped_and_leaves_what_is_not_extracted_pending(store, tmp_path):
    store.discard(LATENTS.name, 2)
    compacted = Store.create(tmp_path / "compact.zarr", 8)

    def stop(feature: str, partition: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(store, compacted, progress=stop)
    assert len(compacted.pending(STATES.name)) in (3, 4)
    compact(store, compacted)
    assert compacted.pending(STATES.name) == [] and compacted.pending(LATENTS.name) == [2]
    whole = Store.create(tmp_path / "whole.zarr", 8)
    compact(store, whole)
    assert file_bytes(compacted.path) == file_bytes(whole.path)


def test_a_partition_of_few_rows_takes_the_room_of_few_rows(store):
    store.add_rows(sample_rows(1, first=900))
    extract(store.path, 28)
    full, single = (store.path / f"features/{STATES.name}/states/c.{p}.0" for p in (0, 4))
    row = 604
    assert full.stat().st_size - single.stat().st_size == 7 * row


def test_adding_and_dropping_a_feature_touches_no_other(store, tmp_path):
    before = file_bytes(store.path)
    layer = replace(STATES, name="llm.small.l04.mean", identity={**STATES.identity, "layer": 4})
    store.ensure_feature(layer)
    for partition in store.pending(layer.name):
        store.write_partition(layer.name, partition, sample_values(layer, store.rows(partition)))
    added = file_bytes(store.path)
    assert before.items() <= added.items() and store.verify() == []
    store.drop_feature(layer.name)
    assert file_bytes(store.path) == before


def test_a_damaged_data_set_is_found_and_mended_by_the_next_extraction(store):
    ids = [row.id for row in store.rows()]
    path = store.path / "datasets" / "data" / "zarr.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"slots": 32', b'"slots": 31'))
    (damage,) = store.verify()
    assert damage.file == "datasets/data/zarr.json"
    with pytest.raises(CacheError, match="do not agree with their digest"):
        Loader(store, [STATES.name], batch_size=1, selection=Selection("data"))
    assert store.repair([damage]) == []
    store.set_members("data", ids)
    assert path.read_bytes() == good and store.verify() == []


def test_a_store_of_the_version_without_data_sets_still_opens(store):
    shutil.rmtree(store.path / "datasets")
    metadata.publish_metadata(LocalStorage(store.path), "", metadata.root(8, version=1))
    opened = Store.open_or_create(store.path)
    assert opened.datasets() == [] and opened.verify() == []
    assert Loader(opened, [STATES.name], batch_size=1, selection=ALL).n_rows == 28


def test_a_store_of_the_version_with_sha256_in_receipts_is_read_checked_and_extended(store):
    def rewrite(file: Path, place: str, change=lambda content: content) -> None:
        document = json.loads(file.read_text())
        holder, key = (document["attributes"], "sur_cache") if place == "" else (document, "attributes")
        content = {name: value for name, value in holder[key].items() if name != "digest"}
        holder[key] = metadata.seal(change(content))
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def of_version_2(receipt: dict) -> dict:
        shards = {name: {**shard, "sha256": "0" * 64} for name, shard in receipt["shards"].items()}
        return {**receipt, "format_version": 2, "shards": shards}

    root = Path(store.path)
    for file in root.glob("receipts/*/*/*/zarr.json"):
        rewrite(file, "receipt", of_version_2)
    for file in [*root.glob("features/*/zarr.json"), *root.glob("assets/*/zarr.json")]:
        rewrite(file, "declaration")
    rewrite(root / "zarr.json", "", lambda content: {**content, "format_version": 2})
    old = Store.open(root)
    assert old.verify() == []
    assert Loader(old, [STATES.name], batch_size=1, selection=ALL).n_rows == 28
    assert extract(root, 40) == [(spec.name, partition) for spec in (STATES, LATENTS) for partition in (4, 5)]
    assert Store.open(root).verify() == []


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_windows_are_repeated_from_a_manifest_after_compaction(tmp_path, codec):
    feature = replace(STATES, name="x", arrays={"states": replace(STATES.arrays["states"], codec=codec)})
    store = Store.create(tmp_path / "s.zarr", 4)
    for first, count in ((0, 7), (50, 2), (60, 11), (90, 4)):  # partitions of different fill
        store.add_rows(sample_rows(count, first=first))
    store.ensure_feature(feature)
    for partition in store.pending("x"):
        values = sample_values(replace(feature, name=STATES.name), store.rows(partition))
        store.write_partition("x", partition, values)
    store.set_members("data", [row.id for row in store.rows()])

    def served(where: Store, window: int | None = None, **selection) -> list[bytes]:
        order, chosen = Order(window=window), Selection(split="all", **selection)
        loader = Loader(where, ["x"], batch_size=3, selection=chosen, order=order, reader=Windowed)
        return [batch.ids.tobytes() for epoch in (0, 1) for batch in loader.batches(epoch)]

    before = served(store, dataset="data", window=2)
    loader = Loader(store, ["x"], batch_size=3, selection=Selection("data"), order=Order(window=2))
    manifest = loader.manifest.save(tmp_path / "manifest")
    compacted = Store.create(tmp_path / "compact.zarr", 16)
    compact(store, compacted)
    recorded = Manifest.load(manifest)
    assert served(compacted, manifest=recorded) == before
    assert served(compacted, dataset="data", window=2) != before
    assert (
        Loader(compacted, ["x"], batch_size=3, selection=Selection(manifest=recorded)).manifest.digest
        == recorded.digest
    )


def test_rows_extracted_again_in_another_order_still_serve_an_old_manifest(store, tmp_path):
    manifest = Loader(store, [STATES.name], batch_size=5).manifest
    served = serve(store)
    other = Store.create(tmp_path / "other.zarr", 8)
    rows = [replace(row, slot=-1) for row in store.rows()]
    other.add_rows([*rows[20:], *rows[:20]])
    other.ensure_feature(STATES)
    for partition in other.pending(STATES.name):
        other.write_partition(STATES.name, partition, sample_values(STATES, other.rows(partition)))
    assert serve(other, manifest=manifest) == served


def test_other_values_of_small_rows_are_refused_too(tmp_path):
    small = replace(STATES, name="small", arrays={"states": replace(STATES.arrays["states"], shape=(20,))})
    stores = [Store.create(tmp_path / name, 8) for name in ("a", "b")]
    for sign, store in enumerate(stores):
        store.add_rows(sample_rows(8))
        store.ensure_feature(small)
        values = sample_values(small, store.rows(0))
        values["states"] ^= 0x8000 * sign
        store.write_partition("small", 0, values)
    manifest = Loader(stores[0], ["small"], batch_size=1).manifest
    with pytest.raises(CacheError, match="values of small"):
        Loader(stores[1], ["small"], batch_size=1, selection=Selection(manifest=manifest))


def test_compaction_refuses_its_own_store_and_one_with_other_rows(store, tmp_path):
    with pytest.raises(CacheError, match="into itself"):
        compact(store, Store.open(store.path, writable=True))
    other = Store.create(tmp_path / "other.zarr", 8)
    other.add_rows(sample_rows(3, first=700))
    with pytest.raises(CacheError, match="holds 3 rows that"):
        compact(store, other)


def test_compaction_refuses_a_manifest_whose_rows_are_not_there(store, tmp_path):
    manifest = Loader(store, [STATES.name], batch_size=1).manifest
    other = Store.create(tmp_path / "other.zarr", 8)
    other.add_rows(sample_rows(20))
    with pytest.raises(CacheError, match="lacks 8 of the 28 rows of a manifest"):
        compact(other, Store.create(tmp_path / "new.zarr", 8), [manifest])


def test_compaction_goes_on_though_a_row_left_the_data_set_meanwhile(store, tmp_path):
    compacted = Store.create(tmp_path / "compact.zarr", 8)

    def stop(feature: str, partition: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compact(store, compacted, progress=stop)
    store.set_members("data", [row.id for row in store.rows()][1:])
    compact(store, compacted)
    assert compacted.pending(STATES.name) == [] and int(compacted.members("data").sum()) == 27


def test_random_reads_of_many_shards_stay_within_the_open_files(tmp_path):
    store = Store.create(tmp_path / "s.zarr", 1)
    store.add_rows(sample_rows(150))
    arrays = {f"a{n}": replace(STATES.arrays["states"]) for n in range(3)}
    wide = replace(STATES, name="wide", arrays=arrays)
    store.ensure_feature(wide)
    for partition in range(150):
        store.write_partition("wide", partition, sample_values(wide, store.rows(partition)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 64, hard))
    try:
        for reader, window in ((Resident, 0), (RowWise, 0), (Windowed, 2)):
            for batch_size in (10, 75):
                order = Order(window=window)
                opened = Store.open(store.path)
                loader = Loader(opened, ["wide"], batch_size=batch_size, selection=ALL, order=order, reader=reader)
                assert sum(len(batch.slots) for batch in loader.batches()) == 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("shape", [(256,), (8,)])
@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_what_another_process_wrote_anew_is_read_anew(tmp_path, codec, shape):
    spec = FeatureSpec("x", "x", {}, {"v": ArraySpec("float32", shape, codec)})
    writer = Store.create(tmp_path / "s.zarr", 4)
    writer.add_rows(sample_rows(4))
    writer.ensure_feature(spec)
    ones = {"v": np.ones((4, *shape), dtype=np.float32)}
    writer.write_partition("x", 0, ones, {2: "no picture"})
    reader = Store.open(writer.path)
    assert reader.read("x")["v"][2].max() == 0
    writer.discard("x", 0)
    assert reader.receipt("x", 0) is None
    with pytest.raises(IncompleteFeature):
        reader.read("x")
    writer.write_partition("x", 0, ones)
    assert reader.receipts("x")[0].missing == {}
    assert reader.read("x")["v"].min() == reader.read_partition("x", 0)["v"].min() == 1


def test_a_store_stays_where_it_is_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store.create("relative.zarr", 8)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.add_rows(sample_rows(3))
    assert Store.open(tmp_path / "relative.zarr").n_rows == 3
