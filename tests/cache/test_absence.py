"""What is gone is never taken for what never was: two records that disagree are an error that names both."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace

import pytest
from cache_samples import (
    LATENTS,
    STATES,
    extract,
    file_bytes,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
)

from sur.cache import CorruptStore, Loader, Selection, Store, UnknownFeature, compact
from sur.cache.format import metadata
from sur.cache.format.receipts import publish_receipt
from sur.cache.storage.local import LocalStorage


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("pristine") / "store.zarr"
    extract(path, 28)
    store = Store.open(path, writable=True)
    store.set_members("first", [row.id for row in sample_rows(20)])
    store.set_members("second", [row.id for row in sample_rows(28)[20:]])
    return path


@pytest.fixture
def path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "store.zarr")


@pytest.mark.parametrize("partition", [0, 2, 3])
def test_a_lost_receipt_of_rows_is_named_wherever_rows_are_asked_for(path, tmp_path, partition):
    """The last one too, which a listing alone cannot tell from one that was never written."""
    (path / f"receipts/rows/0000{partition}/zarr.json").unlink()
    target = Store.create(tmp_path / "target.zarr", 8)
    for ask in (
        lambda store: store.n_rows,
        lambda store: store.rows(),
        lambda store: store.row_ids(),
        lambda store: store.read(STATES.name),
        lambda store: store.members("first"),
        lambda store: Loader(store, [STATES.name], batch_size=1, selection=Selection("first")),
        lambda store: store.describe(),
        lambda store: store.add_rows(sample_rows(4, first=90)),
        lambda store: compact(store, target),
    ):
        with pytest.raises(CorruptStore, match=rf"receipts/rows/0000{partition}/zarr.json is gone.*sur verify CONFIG"):
            ask(Store.open(path, writable=True))
    assert target.n_rows == 0
    assert [damage.file for damage in Store.open(path).verify()] == [f"receipts/rows/0000{partition}/zarr.json"]


@pytest.mark.parametrize("partition", [1, 3])
@pytest.mark.parametrize("what", ["receipts/rows/0000{}", "receipts/rows"])
def test_lost_receipts_of_rows_are_restored_by_the_receipts_of_features_alone(path, pristine, what, partition):
    shutil.rmtree(path / what.format(partition))
    store = Store.open(path, writable=True)
    assert store.repair(store.verify()) == []
    assert store.n_rows == 28 and file_bytes(path) == file_bytes(pristine)


def test_lost_receipts_of_everything_are_restored_from_the_source_and_from_no_other(path):
    shutil.rmtree(path / "receipts")
    store = Store.open(path, writable=True)
    lost = {damage.file for damage in store.repair(store.verify(), sample_rows(28, first=1))}  # knows all but row 0
    assert {file for file in lost if file.startswith("receipts/rows/0")} == {"receipts/rows/00000/zarr.json"}
    with pytest.raises(CorruptStore, match="is gone"):
        store.rows()
    assert store.repair(store.verify(), sample_rows(28)) == []
    assert [row.id for row in store.rows()] == [row.id for row in sample_rows(28)]


def test_one_damaged_shape_invents_no_partitions(path):
    shape = path / "rows/id/zarr.json"
    shape.write_bytes(shape.read_bytes().replace(b"    32,", b"    96,"))
    assert Store.open(path).n_rows == 28
    assert [damage.file for damage in Store.open(path).verify()] == ["rows/id/zarr.json"]


def test_a_killed_append_that_nothing_counts_yet_is_no_loss(path):
    """Receipts come before the shapes that count them; shards and folders before receipts."""
    (path / "receipts/rows/00004").mkdir()
    (path / "rows/id/c.4.0").write_bytes(b"the first file of an append")
    store = Store.open(path, writable=True)
    assert store.n_rows == 28
    assert store.add_rows(sample_rows(3, first=200)) == 3 and Store.open(path).n_rows == 31


def test_a_data_set_that_counts_more_slots_than_there_are_rows_is_refused(path):
    store = Store.open(path, writable=True)
    content = {"slots": 64, "members": "ff" * 8}
    sealed = metadata.group(metadata.seal(content, "datasets/first"))
    metadata.publish_metadata(LocalStorage(path), "datasets/first", sealed)
    with pytest.raises(CorruptStore, match=r"datasets/first/zarr.json counts 64 slots, but the rows have 32"):
        store.members("first")
    assert [damage.file for damage in store.verify()] == ["datasets/first/zarr.json"]


@pytest.mark.parametrize("gone", ["datasets/second", "datasets/second/zarr.json", "datasets"])
def test_a_lost_data_set_is_named_and_its_rows_are_never_left_behind(path, tmp_path, gone):
    shutil.rmtree(path / gone) if (path / gone).is_dir() else (path / gone).unlink()
    store = Store.open(path, writable=True)
    assert "datasets/second/zarr.json" in {damage.file for damage in store.verify()}
    assert store.datasets() == ["first", "second"]
    message = r"datasets/second/zarr.json is gone.*Run the extraction of its rows again, or .*sur drop STORE second"
    with pytest.raises(CorruptStore, match=message):
        store.members("second")
    for _ in range(2):  # a repair cannot bring it back, and does not forget it
        with pytest.raises(CorruptStore, match="is gone, so nothing tells"):
            compact(store, Store.open_or_create(tmp_path / "target.zarr"))
        assert store.repair(store.verify()) == []
    store.set_members("first", [row.id for row in sample_rows(20)])
    store.set_members("second", [row.id for row in sample_rows(28)[20:]])
    assert store.verify() == [] and compact(store, Store.open_or_create(tmp_path / "target.zarr")) == 0


def test_a_data_set_is_dropped_by_name_and_then_forgotten(path, tmp_path):
    store = Store.open(path, writable=True)
    store.drop_feature("second")
    assert store.datasets() == ["first"] and store.verify() == [] and store.n_rows == 28
    with pytest.raises(UnknownFeature, match=r"'second'. It holds: .*first"):
        store.drop_feature("second")
    shutil.rmtree(path / "datasets/first")
    store.drop_feature("first")
    assert store.datasets() == [] and store.verify() == []


def test_a_store_that_lists_no_data_sets_keeps_its_bytes_until_one_is_added(path):
    """As stores of versions before the list."""
    storage = LocalStorage(path)
    metadata.publish_metadata(storage, "", metadata.root(8))
    before = file_bytes(path)
    store = Store.open_or_create(path)
    store.set_members("first", [row.id for row in sample_rows(20)])
    assert file_bytes(path) == before and store.verify() == []
    store.set_members("third", [])
    shutil.rmtree(path / "datasets/second")
    assert [damage.file for damage in store.verify()] == ["datasets/second/zarr.json"]


@pytest.mark.parametrize(
    ("name", "section"), [(STATES.name, "features"), (LATENTS.name, "features"), ("null", "assets")]
)
def test_a_lost_feature_is_named_forgotten_by_repair_and_computed_anew(path, pristine, tmp_path, name, section):
    shutil.rmtree(path / section / name)
    store = Store.open(path, writable=True)
    declaration = f"{section}/{name}/zarr.json"
    assert [damage.file for damage in store.verify()] == [declaration]
    with pytest.raises(CorruptStore, match=f"{declaration} is gone, but receipts of {name} are there"):
        compact(store, Store.create(tmp_path / "target.zarr"))
    assert store.repair(store.verify()) == []
    assert store.verify() == []
    extract(path, 28)
    assert file_bytes(path) == file_bytes(pristine)


def test_a_feature_of_which_only_receipts_are_left_can_be_dropped(path):
    shutil.rmtree(path / "features" / STATES.name)
    store = Store.open(path, writable=True)
    with pytest.raises(CorruptStore, match=f"is gone.*sur drop STORE {STATES.name}"):
        store.read(STATES.name)
    store.drop_feature(STATES.name)
    assert store.verify() == [] and set(store.features()) == {LATENTS.name}


def test_a_lost_declaration_keeps_compaction_from_leaving_a_feature_behind(path, tmp_path):
    (path / "features" / LATENTS.name / "zarr.json").write_bytes(b"{}")
    with pytest.raises(CorruptStore, match=LATENTS.name):
        compact(Store.open(path), Store.create(tmp_path / "target.zarr"))


@pytest.mark.parametrize("emptied", [False, True])
def test_a_store_without_its_root_is_not_made_anew(path, pristine, emptied):
    (path / "zarr.json").unlink()
    if emptied:
        (path / "zarr.json").mkdir()
    assert Store.exists(path)
    for open_store in (Store.open, lambda path: Store.open_or_create(path, 100), Store.create):
        with pytest.raises(CorruptStore, match=r"zarr.json is gone, but .*sur verify CONFIG --repair"):
            open_store(path)
    store = Store.open(path, writable=True, recover=True)
    assert store.repair(store.verify()) == []
    assert file_bytes(path) == file_bytes(pristine)


def test_an_empty_folder_in_the_place_of_a_file_is_a_lost_file(path, pristine):
    for name in (
        f"features/{STATES.name}/states/c.1.0",
        "rows/simple/c.2",
        "datasets/first/zarr.json",
        "rows/zarr.json",
    ):
        (path / name).unlink()
        (path / name).mkdir()
    store = Store.open(path, writable=True)
    assert store.pending(STATES.name) == [1]
    with pytest.raises(CorruptStore, match=r"rows/simple/c.2 is gone"):
        store.rows()
    assert store.repair(store.verify(), sample_rows(28)) == []
    extract(path, 28)
    store.set_members("first", [row.id for row in sample_rows(20)])
    assert file_bytes(path) == file_bytes(pristine)


@pytest.mark.parametrize(
    "name",
    ["zarr.json", "rows/zarr.json", "rows/id/zarr.json", "datasets/first/zarr.json", "assets/null/zarr.json",
     f"features/{STATES.name}/zarr.json", f"features/{STATES.name}/states/zarr.json", "receipts/rows/00001/zarr.json",
     f"receipts/features/{LATENTS.name}/00002/zarr.json", "receipts/assets/null/00000/zarr.json"],
)  # fmt: skip
@pytest.mark.parametrize("change", [lambda data: data + b"\n", lambda data: data.replace(b": ", b":  "),
                                    lambda data: data.replace(b"{\n", b"{\r\n", 1)])  # fmt: skip
def test_added_blanks_are_found_and_written_away_without_computing_anything(path, pristine, name, change):
    (path / name).write_bytes(change((path / name).read_bytes()))
    store = Store.open(path, writable=True)
    assert store.n_rows == 28 and store.pending(STATES.name) == []
    assert [damage.file for damage in store.verify()] == [name]
    assert store.repair(store.verify()) == []
    assert file_bytes(path) == file_bytes(pristine)


def test_ids_that_are_not_those_of_their_receipt_are_refused(path):
    """The receipt of one partition with the rows of another: both are intact."""
    store = Store.open(path)
    receipt = replace(store._rows.receipt(1), rows_digest=store._rows.digest(2))
    publish_receipt(LocalStorage(path), "receipts/rows/00001", receipt)
    with pytest.raises(CorruptStore, match=r"rows/id/c.1.0: not the ids that its receipt names"):
        Store.open(path).row_ids()


def test_a_message_of_damage_ends_with_a_remedy_and_survives_a_process_pool():
    error = CorruptStore("x is damaged.")
    assert (
        str(pickle.loads(pickle.dumps(error))) == str(error) == "x is damaged. Mend it by `sur verify CONFIG --repair`."
    )
    assert str(CorruptStore("x.", "Do this.")) == "x. Do this."
