"""One changed bit anywhere is found and named, and a wrong number is never handed out."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from cache_samples import (
    ALL,
    LATENTS,
    STATES,
    extract,
    file_bytes,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
)

from sur.cache import CacheError, CorruptStore, IncompleteFeature, Loader, Resident, RowWise, Store

DATA = f"features/{STATES.name}/states/c.2.0"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("pristine") / "store.zarr"
    extract(path, 20)
    return path


@pytest.fixture
def store(pristine, tmp_path) -> Store:
    shutil.copytree(pristine, tmp_path / "store.zarr")
    return Store.open(tmp_path / "store.zarr", writable=True)


def flip(path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


def test_an_intact_store_has_no_damage(store):
    seen = []
    assert store.verify(seen.append) == []
    assert DATA in seen


def test_a_flipped_bit_in_every_file_is_found_and_named(store):
    generator = random.Random(0)
    for name, data in file_bytes(store.path).items():
        for _ in range(3):
            path, bit = store.path / name, generator.randrange(8 * len(data))
            flip(path, bit)
            damage = store.verify()
            assert any(item.file == name for item in damage), f"{name}, bit {bit}: {damage}"
            path.write_bytes(data)
    assert store.verify() == []


@pytest.mark.parametrize("change", ["truncate", "remove", "zero", "append"])
def test_files_cut_short_removed_or_zeroed_are_found_and_named(store, change):
    for name, data in file_bytes(store.path).items():
        path = store.path / name
        if change == "remove":
            if name == "datasets/zarr.json":
                continue  # a store without data sets needs none
            path.unlink()
        else:
            half = len(data) // 2
            path.write_bytes({"truncate": data[:half], "zero": bytes(len(data)), "append": data + b"x"}[change])
        lost_receipt = change == "remove" and name.startswith("receipts/")
        assert any(item.file == name or lost_receipt for item in store.verify()), name
        path.write_bytes(data)


def test_damage_names_feature_partition_file_and_chunk(store):
    flip(store.path / DATA, 8 * (604 * 3 + 10))
    (damage,) = store.verify()
    assert (damage.feature, damage.partition, damage.file) == (STATES.name, 2, DATA)
    assert "1 of its chunks, first 3" in damage.problem


def test_swapped_shards_are_found_by_verify_and_on_reading(store):
    one, two = (store.path / f"features/{STATES.name}/states/c.{p}.0" for p in (0, 1))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    assert [item.partition for item in store.verify()] == [0, 1]
    with pytest.raises(CorruptStore, match="checksum of its receipt"):
        store.read(STATES.name, np.array([3]))


def test_values_of_other_rows_are_found_by_verify_and_on_reading(store, tmp_path):
    other = Store.create(tmp_path / "other.zarr", 8)
    other.add_rows(sample_rows(20, first=50))
    for part in ("features", "receipts/features"):
        shutil.copytree(store.path / part, other.path / part, dirs_exist_ok=True)
    assert {item.problem for item in other.verify()} == {"receipt of other rows"}
    assert other.pending(STATES.name) == [0, 1, 2]
    with pytest.raises(IncompleteFeature):
        other.read(STATES.name)


@pytest.mark.parametrize("reader", [Resident, RowWise])
@pytest.mark.parametrize("array, offset", [("states/c.1.0", 604 * 2 + 99), ("length/c.1", 9)])
def test_the_loader_never_hands_out_a_flipped_bit(store, reader, array, offset):
    flip(store.path / f"features/{STATES.name}/{array}", 8 * offset)
    with pytest.raises(CorruptStore, match=r"checksum.*Run verify"):
        for _ in Loader(store, [STATES.name], batch_size=4, selection=ALL, reader=reader).batches():
            pass


def test_a_shard_cut_short_or_gone_counts_as_not_done(store):
    path = store.path / DATA
    path.write_bytes(path.read_bytes()[:-1])
    assert store.pending(STATES.name) == [2]
    path.unlink()
    assert store.pending(STATES.name) == [2]


def test_a_flipped_bit_in_the_rows_is_an_error_when_they_are_read(store):
    flip(store.path / "rows/simple/c.0", 100)
    with pytest.raises(CorruptStore, match="rows/simple"):
        Store.open(store.path).rows(0)
    flip(store.path / "rows/id/c.1.0", 100)
    with pytest.raises(CorruptStore, match="rows/id"):
        Store.open(store.path).row_ids()


def test_a_discarded_or_damaged_partition_is_recomputed_to_the_same_bytes(store, pristine):
    flip(store.path / DATA, 5000)
    flip(store.path / f"receipts/features/{LATENTS.name}/00000/zarr.json", 5000)
    store.discard(STATES.name, 2)
    assert extract(store.path, 20) == [(STATES.name, 2), (LATENTS.name, 0)]
    assert file_bytes(store.path) == file_bytes(pristine)


def test_lost_metadata_is_written_anew_and_intact_values_are_kept(store, pristine):
    for name in ("zarr.json", "states/zarr.json"):
        (store.path / "features" / STATES.name / name).unlink()
    assert extract(store.path, 20) == []
    assert file_bytes(store.path) == file_bytes(pristine)


def test_leftovers_and_strangers_are_reported(store):
    for name in (DATA + ".partial", f"features/{STATES.name}/states/c.9.0", "rows/notes.txt"):
        (store.path / name).write_bytes(b"x")
    problems = {item.file: item.problem for item in store.verify()}
    assert "interrupted write" in problems[DATA + ".partial"]
    assert "no receipt" in problems[f"features/{STATES.name}/states/c.9.0"]
    assert problems["rows/notes.txt"] == "not part of the store"


def test_partitions_still_to_come_are_no_damage(store):
    store.add_rows(sample_rows(8, first=100))
    assert store.verify() == []
    with pytest.raises(CacheError):
        store.read(STATES.name)


@pytest.mark.parametrize("change", ["flip", "truncate", "remove"])
def test_repair_and_the_next_extraction_bring_back_every_byte(store, pristine, change):
    whole = file_bytes(pristine)
    generator = random.Random(1)
    for name, data in whole.items():
        path = store.path / name
        if change == "remove":
            path.unlink()
        elif change == "truncate":
            path.write_bytes(data[: len(data) // 2])
        else:
            flip(path, generator.randrange(8 * len(data)))
        opened = Store.open(store.path, writable=True, recover=True)
        assert opened.repair(opened.verify(), sample_rows(20)) == [], name
        extract(store.path, 20)
        assert file_bytes(store.path) == whole, name


def test_rows_are_restored_only_to_what_was_committed(store):
    path = store.path / "rows/simple/c.0"
    flip(path, 300)
    damages = store.verify()
    assert store.repair(damages) == damages  # no records to restore them from
    others = [replace(row, simple=row.simple + "!") for row in sample_rows(20)]
    assert store.repair(damages, others) == damages
    assert store.repair(damages, sample_rows(20)) == [] and store.verify() == []


@pytest.mark.parametrize("there", [f"features/{LATENTS.name}", "assets/null"])
def test_declarations_in_each_other_s_place_are_found_and_mended(store, there):
    store.set_members("data", [row.id for row in store.rows()])
    files = [store.path / here / "zarr.json" for here in (f"features/{STATES.name}", there)]
    whole, contents = file_bytes(store.path), [file.read_bytes() for file in files]
    for file, content in zip(files, reversed(contents), strict=True):
        file.write_bytes(content)
    damages = Store.open(store.path).verify()
    assert {str(file.relative_to(store.path)) for file in files} <= {damage.file for damage in damages}
    opened = Store.open(store.path, writable=True, recover=True)
    assert opened.repair(damages) == []
    extract(store.path, 20)
    assert file_bytes(store.path) == whole


def test_data_sets_in_each_other_s_place_are_found(store):
    ids = [row.id for row in store.rows()]
    store.set_members("one", ids[:3])
    store.set_members("two", ids[5:])
    one, two = (store.path / "datasets" / name / "zarr.json" for name in ("one", "two"))
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    assert {damage.file for damage in store.verify()} == {"datasets/one/zarr.json", "datasets/two/zarr.json"}
    with pytest.raises(CorruptStore):
        store.members("one")


def test_a_damaged_declaration_leaves_other_features_usable_and_can_be_dropped(store, caplog):
    flip(store.path / "features" / STATES.name / "zarr.json", 8 * 150)
    assert set(store.features()) == {LATENTS.name} and STATES.name in caplog.text
    assert len(store.read(LATENTS.name)["mean"]) == 20
    with pytest.raises(CorruptStore):
        Store.open(store.path).read(STATES.name)
    store.add_rows(sample_rows(8, first=100))
    store.drop_feature(STATES.name)
    assert not (store.path / "features" / STATES.name).exists()
    extract(store.path, 20)
    assert store.verify() == []


def test_other_peoples_files_are_reported_and_neither_touched_nor_a_reason_to_compute(store, pristine):
    strangers = [
        "datasets/photos/cat.jpg",
        "datasets/notes.txt",
        "mine/download.zip.partial",
        f"features/{STATES.name}/states/.DS_Store",
        f"features/{STATES.name}/states/.c.3.0.Xy12ab",
        f"features/{STATES.name}/states/c.2.0.bak",
        f"features/{STATES.name}/my plots/figure.png",
        "assets/null/states/.nfs001",
        f"receipts/features/{STATES.name}/00001/notes.txt",
    ]
    for name in strangers:
        (store.path / name).parent.mkdir(parents=True, exist_ok=True)
        (store.path / name).write_bytes(b"somebody's")
    beyond = store.repair(store.verify())
    store.ensure_feature(STATES)
    assert {damage.file for damage in beyond} == set(strangers)
    assert {damage.problem for damage in beyond} == {"not part of the store"}
    assert all((store.path / name).read_bytes() == b"somebody's" for name in strangers)
    assert extract(store.path, 20) == []


def test_a_store_is_not_made_in_a_folder_that_has_something_else_under_its_names(tmp_path):
    (tmp_path / "datasets" / "imgs").mkdir(parents=True)
    (tmp_path / "datasets" / "imgs" / "a.png").write_bytes(b"x")
    with pytest.raises(CacheError, match=r"not empty \('datasets/imgs/a.png'"):
        Store.open_or_create(tmp_path)


def test_damage_that_was_mended_since_it_was_listed_costs_nothing(store):
    flip(store.path / DATA, 5000)
    damages = store.verify()
    store.discard(STATES.name, 2)
    assert extract(store.path, 20) == [(STATES.name, 2)]
    assert store.repair(damages) == [] and Store.open(store.path).pending(STATES.name) == []


def test_rows_are_not_added_behind_a_lost_receipt(store):
    receipt = store.path / "receipts/rows/00001/zarr.json"
    good = receipt.read_bytes()
    receipt.unlink()
    opened = Store.open(store.path, writable=True)
    with pytest.raises(CorruptStore, match="is gone, but partitions after it are there"):
        opened.add_rows(sample_rows(28))
    assert opened.repair(opened.verify(), sample_rows(20)) == []
    assert receipt.read_bytes() == good and store.verify() == []


def test_a_recovered_root_must_fit_the_ids(store):
    (store.path / "zarr.json").write_bytes(b"{}")
    ids = store.path / "rows/id/zarr.json"
    ids.write_bytes(ids.read_bytes().replace(b"8,\n", b"9,\n"))
    with pytest.raises(CacheError):
        Store.open(store.path, recover=True)
