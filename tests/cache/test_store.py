"""What a store keeps, refuses and says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from cache_samples import (
    LATENTS,
    NULL,
    STATES,
    extract,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
    sample_values,
)

from sur.cache import (
    ArraySpec,
    BadValues,
    CacheError,
    CorruptStore,
    FeatureSpec,
    IdentityMismatch,
    IncompleteFeature,
    NewerFormat,
    RowRecord,
    Store,
    UnknownFeature,
    bfloat16_to_float32,
    float32_to_bfloat16,
    row_id,
)
from sur.cache.format import metadata


@pytest.fixture
def store(tmp_path) -> Store:
    extract(tmp_path / "store.zarr", 20)
    return Store.open(tmp_path / "store.zarr", writable=True)


def test_rows_come_back_in_slot_order_without_duplicates(store):
    rows = sample_rows(20)
    assert [replace(row, slot=-1) for row in store.rows()] == rows
    assert [row.slot for row in store.rows(2)] == [16, 17, 18, 19]
    assert (store.n_rows, store.n_partitions, store.row_ids().shape) == (20, 3, (24, 16))
    assert store.add_rows([*rows, *rows]) == 0


def test_appended_rows_go_to_new_partitions_and_leave_the_old_bytes_alone(store):
    shards = {path: path.read_bytes() for path in store.path.rglob("c.*")}
    assert store.add_rows(sample_rows(25)) == 5
    assert [row.slot for row in store.rows(3)] == [24, 25, 26, 27, 28]
    assert store.pending(STATES.name) == [3]
    extract(store.path, 25)
    assert all(path.read_bytes() == data for path, data in shards.items())
    assert store.verify() == []


def test_row_id_is_a_hash_of_content_with_unambiguous_boundaries():
    ids = {row_id("ab", "c", None), row_id("a", "bc", None), row_id("ab", "c", b""), row_id("ab", "c", b"x")}
    assert len(ids) == 4 and all(len(id) == 16 for id in ids)


@pytest.mark.parametrize("id", [b"short", bytes(16)])
def test_row_ids_of_another_form_are_refused(store, id):
    with pytest.raises(BadValues, match="16 bytes"):
        store.add_rows([RowRecord(id, "a")])


def test_values_come_back_as_written_at_any_slots(store):
    for spec in (STATES, LATENTS):
        slots = np.array([19, 0, 7, 8, 0])
        expected = sample_values(spec, [store.rows()[row] for row in slots])
        for name, values in store.read(spec.name, slots).items():
            here = np.array([slot not in store.missing(spec.name) for slot in slots])
            assert np.array_equal(values[here], expected[name][here])
            assert not values[~here].any()
    assert len(store.read(STATES.name)["length"]) == 20


def test_one_array_of_a_feature_can_be_read_without_the_others(store):
    slots = np.array([1, 0])
    expected = store.read(STATES.name, slots)["length"]
    shard = store.path / "features" / STATES.name / "states" / "c.0.0"
    shard.write_bytes(bytes(shard.stat().st_size))
    again = Store.open(store.path)
    read = again.read(STATES.name, slots, ["length"])
    assert list(read) == ["length"] and np.array_equal(read["length"], expected)
    with pytest.raises(CorruptStore):
        again.read(STATES.name, slots)


@pytest.mark.parametrize("slots", [[20], [-1], [24], [3, 10**6]])
def test_slots_without_a_row_are_refused(store, slots):
    with pytest.raises(IndexError, match="holds no row"):
        store.read(STATES.name, np.array(slots))


def test_another_identity_is_refused_by_the_name_of_each_field(store):
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    identity = {"model": "large", "layer": 3, "template": None, "pooling": {"kind": "mean"}}
    arrays = {**STATES.arrays, "length": ArraySpec("int64", ())}
    with pytest.raises(IdentityMismatch) as refusal:
        store.ensure_feature(FeatureSpec(STATES.name, "llm", identity, arrays))
    message = str(refusal.value)
    for part in (
        "identity.model: stored 'small', wanted 'large'",
        "identity.pooling.kind: stored '(absent)', wanted 'mean'",
        "arrays.length.dtype: stored 'int32', wanted 'int64'",
        "drop",
    ):
        assert part in message
    assert "layer" not in message
    assert before == {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}


def test_a_feature_beside_another_touches_no_byte_of_it(store):
    before = {path: path.read_bytes() for path in (store.path / "features").rglob("*") if path.is_file()}
    other = FeatureSpec("llm.small.l04.mean", "llm", {"model": "small", "layer": 4}, STATES.arrays)
    store.ensure_feature(other)
    assert store.pending(other.name) == [0, 1, 2]
    assert all(path.read_bytes() == data for path, data in before.items())
    assert store.features()[other.name] == other


def nan_at(values: np.ndarray, row: int) -> np.ndarray:
    values = values.copy()
    values[row].reshape(-1)[5] = 0x7FC0 if values.dtype == np.uint16 else np.inf
    return values


@pytest.mark.parametrize("spec, array", [(STATES, "states"), (LATENTS, "mean")])
def test_not_finite_values_are_refused_before_anything_is_published(store, spec, array):
    store.discard(spec.name, 1)
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    values = sample_values(spec, store.rows(1))
    bad = {**values, array: nan_at(values[array], 3)}
    with pytest.raises(BadValues, match=rf"{array}: not finite at \(3, .*slot 11"):
        store.write_partition(spec.name, 1, bad)
    assert before == {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    store.write_partition(spec.name, 1, bad, missing={3: "not finite"})
    assert store.missing(spec.name)[11] == "not finite"
    assert not store.read(spec.name, np.array([11]))[array].any()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: {"states": v["states"]}, "expected arrays"),
        (lambda v: {**v, "length": v["length"][:3]}, r"expected shape \(8,\), got \(3,\)"),
        (lambda v: {**v, "length": v["length"].astype("int64")}, "expected dtype int32, got int64"),
        (lambda v: {**v, "states": v["states"].astype("float32")}, "float32_to_bfloat16"),
    ],
)
def test_values_of_another_form_are_refused(store, change, message):
    store.discard(STATES.name, 0)
    with pytest.raises(BadValues, match=message):
        store.write_partition(STATES.name, 0, change(sample_values(STATES, store.rows(0))))


def test_reading_what_is_not_extracted_yet_is_refused(store):
    store.add_rows(sample_rows(8, first=100))
    with pytest.raises(IncompleteFeature, match="partition 3"):
        store.read(STATES.name)
    with pytest.raises(UnknownFeature, match=r"holds no feature 'other'.*llm\.small"):
        store.read("other")


def test_assets_are_kept_under_the_same_rules(store):
    assert store.read_asset("null")["states"].tolist() == np.arange(35.0).reshape(5, 7).tolist()
    assert store.has_asset(NULL) and not store.has_asset(replace(NULL, name="other"))
    with pytest.raises(IdentityMismatch, match="identity.model"):
        store.has_asset(FeatureSpec("null", "text", {"model": "large"}, NULL.arrays))
    with pytest.raises(BadValues, match="not finite"):
        store.write_asset(replace(NULL, name="bad"), {"states": np.full((5, 7), np.nan, np.float32)})
    assert not store.has_asset(replace(NULL, name="bad"))


def test_a_dropped_feature_is_gone_and_can_be_made_anew(store):
    store.drop_feature(STATES.name)
    assert list(store.features()) == [LATENTS.name]
    assert store.verify() == []
    changed = FeatureSpec(STATES.name, "llm", {"model": "large"}, {"pooled": ArraySpec("float32", (4,))})
    store.ensure_feature(changed)
    assert store.pending(STATES.name) == [0, 1, 2]


def test_another_process_that_replaces_a_feature_is_noticed_before_writing(store):
    other = Store.open(store.path, writable=True)
    other.drop_feature(STATES.name)
    with pytest.raises(UnknownFeature), store.claim(STATES.name, 0):
        pass


def test_a_newer_format_is_refused(store):
    document = metadata.root(8)
    document["attributes"]["sur_cache"]["format_version"] = 4
    (store.path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(NewerFormat, match="version 4.*up to 3.*Upgrade"):
        Store.open(store.path)


def test_a_changed_root_is_refused(store):
    path = store.path / "zarr.json"
    path.write_text(path.read_text().replace('"rows_per_partition": 8', '"rows_per_partition": 9'))
    with pytest.raises(CorruptStore, match="digest"):
        Store.open(store.path)


def test_paths_that_hold_no_store_or_something_else_are_refused(tmp_path, store):
    with pytest.raises(CacheError, match="no feature store"):
        Store.open(tmp_path / "nothing")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(CacheError, match=r"a\.jpg"):
        Store.create(tmp_path / "photos")
    with pytest.raises(CacheError, match="holds a store already"):
        Store.create(store.path)
    with pytest.raises(CacheError, match="writable=True"):
        Store.open(store.path).add_rows([])


def test_names_that_are_no_folder_names_are_refused():
    for name in ("../x", "A", "", "a b", "__x"):
        with pytest.raises(BadValues, match="must match"):
            FeatureSpec(name, "llm", {}, STATES.arrays)


def test_describe_counts_what_is_done_missing_and_on_disk(store):
    store.add_rows(sample_rows(8, first=100))
    summary = store.describe()
    states, latents = summary.features
    assert (summary.n_rows, summary.n_partitions) == (28, 4)
    assert (states.partitions_done, states.partitions_total, states.stats) == (3, 4, {"rows": 20})
    assert latents.rows_missing == 13
    files = (store.path / "features" / STATES.name).rglob("c.*")
    assert states.bytes_on_disk == sum(path.stat().st_size for path in files)
    assert summary.assets[0].identity == NULL.identity


def test_bfloat16_rounds_as_torch_does():
    import torch

    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = np.concatenate([values[~np.isnan(values)], np.array([0, -0.0, np.inf, -np.inf, 3.4e38], np.float32)])
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert np.array_equal(float32_to_bfloat16(values), expected.view(torch.uint16).numpy())
    assert np.array_equal(bfloat16_to_float32(float32_to_bfloat16(values)), expected.float().numpy())
    assert np.isnan(bfloat16_to_float32(float32_to_bfloat16(np.full(1, np.nan, np.float32)))).all()
