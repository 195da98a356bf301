"""Verification, repair, drops and compaction beside writers, beside links, and in the wrong place."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cache_samples import (
    LATENTS,
    STATES,
    extract,
    file_bytes,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
    sample_values,
)

from sur.cache import CacheError, NotWritable, Store, StoreBusy, UnknownFeature, compact
from sur.cache.storage import local
from sur.cache.storage.base import open_storage, same_or_inside
from sur.cache.storage.local import LocalStorage

SUPPORT = Path(__file__).parents[1] / "support"
WRITER = f"""
import os, sys
from dataclasses import replace
os.fsync = lambda descriptor: None
sys.path.insert(0, {str(SUPPORT)!r})
from cache_samples import STATES, Path, Store, extract, sample_values
path = Path(sys.argv[1])
for number in range(12):
    extract(path, 12 + 4 * number)
    store = Store.open(path, writable=True)
    store.set_members(f"set{{number % 3}}", [row.id for row in store.rows()])
    feature = replace(STATES, name="short-lived", identity={{"number": number}})
    store.ensure_feature(feature)
    for partition in store.pending(feature.name):
        store.write_partition(feature.name, partition, sample_values(feature, store.rows(partition)))
    store.drop_feature(feature.name)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    extract(tmp_path / "store.zarr", 20)
    return tmp_path / "store.zarr"


def test_nothing_beside_a_writer_is_damage_an_error_or_taken_away_from_it(path):
    environment = os.environ | {"PYTHONPATH": str(SUPPORT.parents[1])}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment)
    looks = 0
    try:
        while writer.poll() is None:
            damages = Store.open(path).verify()
            assert damages == []
            store = Store.open(path, writable=True)
            for look in (store.features, store.describe, store.assets):
                look()
            for name in store.datasets():
                store.members(name)
            store.repair(damages)
            looks += 1
    finally:
        writer.kill()  # of no effect on one that has ended
        writer.wait()
    assert writer.returncode == 0 and looks > 3
    assert Store.open(path).verify() == []
    whole = path.with_name("whole.zarr")
    extract(whole, 56)
    numbers = [int((path / f"features/{STATES.name}/states").is_dir()), Store.open(whole).n_rows]
    assert numbers == [1, Store.open(path).n_rows]


def test_a_set_that_is_being_written_is_never_taken_for_lost(path, monkeypatch):
    store = Store.open(path, writable=True)
    ids = [row.id for row in store.rows()][:5]
    publish, looks = LocalStorage.publish, []

    def publish_and_look(self, key, data):
        publish(self, key, data)
        other = Store.open(path)
        looks.append({name: int(other.members(name).sum()) for name in other.datasets()})

    monkeypatch.setattr(LocalStorage, "publish", publish_and_look)
    store.set_members("first", ids)
    store.set_members("second", ids[:3])
    store.drop_feature("first")
    assert {"first": 5} in looks and {"first": 5, "second": 3} in looks


def test_repair_looks_again_before_it_removes_a_declaration_or_a_receipt(path):
    store, whole = Store.open(path, writable=True), file_bytes(path)
    for name in (f"features/{STATES.name}/zarr.json", f"receipts/features/{LATENTS.name}/00001/zarr.json"):
        (path / name).write_bytes(b"{")
    damages = store.verify()
    assert len(damages) == 2
    for name, data in whole.items():
        (path / name).write_bytes(data)  # another process has finished them
    assert store.repair(damages) == [] and file_bytes(path) == whole


def test_repair_leaves_the_temporary_file_of_a_live_writer(path):
    store = Store.open(path, writable=True)
    partial = path / f"features/{STATES.name}/states/c.1.0.partial"
    partial.write_bytes(b"half a shard")
    (damage,) = store.verify()
    with Store.open(path)._storage.locked(f"receipts/features/{STATES.name}/00001", wait=True):
        assert store.verify() == [] and store.repair([damage]) == []
        assert partial.exists()
    assert store.repair([damage]) == [] and not partial.exists()


def test_a_feature_that_is_dropped_while_names_are_read_is_left_out(path, monkeypatch):
    size, dropped = local.LocalStorage.size, []

    def drop_after(storage, key):
        found = size(storage, key)
        if key == f"features/{STATES.name}/zarr.json" and not dropped:
            dropped.append(key)
            Store.open(path, writable=True).drop_feature(STATES.name)
        return found

    monkeypatch.setattr(local.LocalStorage, "size", drop_after)
    assert set(Store.open(path).features()) == {LATENTS.name}
    assert dropped


def test_a_partition_claimed_while_its_feature_is_dropped_is_busy_or_unknown_and_never_half(path, monkeypatch):
    store, writer = (Store.open(path, writable=True) for _ in range(2))
    store.discard(STATES.name, 1)
    whole, remove, claims = file_bytes(path), local.LocalStorage.remove, []

    def claim_before(storage, key):
        if key == f"features/{STATES.name}/zarr.json" and not claims:
            claims.append(writer.claim(STATES.name, 1))
            assert claims[0].__enter__()
        remove(storage, key)

    monkeypatch.setattr(local.LocalStorage, "remove", claim_before)
    with pytest.raises(StoreBusy, match="is being written"):
        store.drop_feature(STATES.name)
    assert file_bytes(path) == whole
    writer.write_partition(STATES.name, 1, sample_values(STATES, writer.rows(1)))
    claims[0].__exit__(None, None, None)
    assert store.pending(STATES.name) == []
    store.drop_feature(STATES.name)
    with pytest.raises(UnknownFeature), writer.claim(STATES.name, 1):
        pass
    assert store.verify() == []


@pytest.mark.parametrize("linked", ["features/evil", f"features/{STATES.name}", "datasets", "receipts/features/evil"])
def test_nothing_is_removed_through_a_link(path, tmp_path, linked):
    foreign = tmp_path / "somebody's"
    for name in (
        "zarr.json",
        "states/zarr.json",
        "00001/zarr.json",
        "data/zarr.json",
        "states/c.0.0.partial",
        "states/c.3.0",
    ):
        (foreign / name).parent.mkdir(parents=True, exist_ok=True)
        (foreign / name).write_bytes(b'{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    before = file_bytes(foreign)
    shutil.rmtree(path / linked, ignore_errors=True)
    (path / linked).symlink_to(foreign)
    store = Store.open(path, writable=True)
    beyond = store.repair(store.verify())
    assert any(damage.file.startswith(linked) for damage in beyond)
    if "features" in linked:
        with pytest.raises(NotWritable, match=r"is a link to .*somebody's, and nothing is removed through a link"):
            store.drop_feature(Path(linked).name)
    store.add_rows(sample_rows(3, first=70))
    after = file_bytes(foreign)
    if linked == "datasets":
        after["zarr.json"] = before["zarr.json"]  # the store's own file, which is written through the link
    assert after.items() >= before.items() and (path / linked).is_symlink()


def test_a_feature_that_its_owner_moved_to_another_disk_is_read_checked_and_written(path, tmp_path):
    moved = tmp_path / "disk" / STATES.name
    shutil.copytree(path / "features" / STATES.name, moved)
    shutil.rmtree(path / "features" / STATES.name)
    (path / "features" / STATES.name).symlink_to(moved)
    assert Store.open(path).verify() == []
    assert extract(path, 28) == [(STATES.name, 3), (LATENTS.name, 3)]
    assert (moved / "states/c.3.0").exists() and Store.open(path).verify() == []
    (moved / "states/c.3.0").write_bytes(b"x")
    assert [damage.partition for damage in Store.open(path).verify()] == [3]


@pytest.mark.parametrize(
    "target", ["{}/", "{}/../store.zarr", "{}/inside", "{}/features", "link", "link/deep/er", "{}/.."]
)
def test_compaction_refuses_its_own_place_however_it_is_written(path, tmp_path, target):
    (tmp_path / "link").symlink_to(path)
    place, whole = Path(target.format(path) if "{}" in target else str(tmp_path / target)), file_bytes(path)
    if target == "{}/inside":
        inner = Store.create(place, 8)
        whole = file_bytes(path)
        with pytest.raises(CacheError, match="into itself"):
            compact(Store.open(path), inner)
    assert same_or_inside(place, path) or same_or_inside(path, place)
    if same_or_inside(place, path) and same_or_inside(path, place):
        with pytest.raises(CacheError, match="into itself"):
            compact(Store.open(path), Store.open(place, writable=True))
    assert file_bytes(path) == whole
    assert compact(Store.open(path), Store.create(tmp_path / "store.zarr2", 8)) == 0  # a name that only begins alike


@pytest.mark.parametrize(
    ("one", "other", "inside"),
    [
        ("s3://bucket/a", "s3://bucket/a/", True),
        ("s3://bucket//a/./b/..", "s3://Bucket/a", True),
        ("s3://bucket/a/b", "s3://bucket/a", True),
        ("s3://bucket/%61", "s3://bucket/a", True),
        ("s3://bucket/ab", "s3://bucket/a", False),
        ("s3://other/a", "s3://bucket/a", False),
        ("gs://bucket/a", "s3://bucket/a", False),
        ("file:///tmp/a/b", "/tmp/a", True),
        ("s3://bucket/a", "/bucket/a", False),
    ],
)
def test_urls_of_one_place_are_recognized(one, other, inside):
    locations = [text if "://" in text else Path(text) for text in (one, other)]
    assert same_or_inside(*locations) == inside


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA123:wJalr%2FSecret@bucket/store.zarr",
        "s3://AKIA123:wJalr/Secret@bucket/store.zarr",
        "s3://wJalrSecret@bucket/x",
        "https://user:wJalrSecret@minio:9000/bucket",
        "az://container/x?sv=1&sig=wJalrSecret",
        "abfss://container:wJalrSecret@account.dfs.core.windows.net/x",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url):
    for use in (Store.open, Store.create, Store.exists, open_storage):
        with pytest.raises(CacheError, match="AWS_SECRET_ACCESS_KEY") as error:
            use(url)
        assert "Secret" not in str(error.value) and "AKIA" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["s3://bucket/users/me@x.org/s.zarr", "http://[::1]:9000/b/x", "abfss://box@account.dfs.core.windows.net/x"]
)
def test_an_at_sign_that_belongs_to_a_place_is_no_secret(url):
    try:
        open_storage(url)
    except CacheError as error:
        assert "password" not in str(error)


def test_a_replaced_identity_is_not_written_by_a_claim_of_the_old_one(path):
    store, writer = (Store.open(path, writable=True) for _ in range(2))
    writer.receipts(STATES.name)  # the writer knows the old identity
    store.drop_feature(STATES.name)
    store.ensure_feature(replace(STATES, identity={"model": "another"}))
    with writer.claim(STATES.name, 0) as ours:
        assert ours and writer.spec(STATES.name).identity == {"model": "another"}
