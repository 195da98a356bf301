"""Looking into a store: statistics and neighbours against naive numpy, search, rows, pictures, differences."""

import errno
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sur.analysis.store import vectors as vectors_module
from sur.analysis.store.difference import compare_features, compare_stores
from sur.analysis.store.neighbours import Neighbours
from sur.analysis.store.pictures import LatentPictures
from sur.analysis.store.rows import describe_row, row_records
from sur.analysis.store.search import PromptSearch
from sur.analysis.store.statistics import feature_statistics
from sur.analysis.store.vectors import row_vectors
from sur.cache import ArraySpec, FeatureSpec, RowRecord, Store, UnknownFeature, float32_to_bfloat16, row_id
from sur.support.errors import NotInStore

TOKENS, DIM, PER_PARTITION = 6, 5, 8


def add_rows(store, first, count):
    rows = [(f"prompt number {n}", f"Complex {n}, 8K" if n % 3 else "") for n in range(first, first + count)]
    store.add_rows(RowRecord(row_id(s, c, None), s, c, f"{n}.png") for n, (s, c) in enumerate(rows))


def write(store, name, values, missing=()):
    """Write partitions that are pending; `values` has all rows of the store in order."""
    first = 0
    for partition in range(store.n_partitions):
        count = len(store.rows(partition))
        places = {p: "no complex prompt" for p in range(count) if first + p in missing}
        store.write_partition(name, partition, {k: v[first : first + count] for k, v in values.items()}, places)
        first += count


@pytest.fixture
def filled(tmp_path):
    """A store of 21 rows with token states, of which two rows are missing, and the float32 values of each."""
    store = Store.create(tmp_path / "s.zarr", PER_PARTITION)
    add_rows(store, 0, 21)
    random = np.random.default_rng(1)
    states = random.standard_normal((21, TOKENS, DIM)).astype(np.float32) * [1, 2, 3, 0, 1] + [0, 0, 5, 7, 0]
    states = states.astype(np.float16)
    length = random.integers(1, TOKENS + 1, 21).astype(np.int32)
    spec = {"states": ArraySpec("float16", (TOKENS, DIM)), "length": ArraySpec("int32", ())}
    store.ensure_feature(FeatureSpec("tokens", "llm", {"model": "m"}, spec))
    write(store, "tokens", {"states": states, "length": length}, missing={4, 20})
    return store, states.astype(np.float32), length, np.array([n for n in range(21) if n not in (4, 20)])


def counted_vectors(states, length, rows):
    return np.concatenate([states[row, : length[row]] for row in rows]).astype(np.float64)


def test_statistics_are_those_of_naive_numpy(filled):
    store, states, length, rows = filled
    found, want = feature_statistics(store, "tokens"), counted_vectors(states, length, rows)
    assert (found.rows, found.rows_missing, found.vectors) == (19, 2, len(want))
    assert found.mean == pytest.approx(want.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(want.std(), rel=1e-12)
    np.testing.assert_allclose(found.dimension_mean, want.mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.dimension_deviation, want.std(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(found.dimension_largest, np.abs(want).max(axis=0))
    assert (found.smallest, found.largest) == (want.min(), want.max())
    assert dict(found.token_lengths) == dict(zip(*np.unique(length[rows], return_counts=True), strict=True))
    assert found.dead == (3,) and found.nan == found.infinite == 0
    json.dumps(found.to_json(), allow_nan=False)


def test_norm_histogram_counts_every_vector_in_its_bin(filled):
    store, states, length, rows = filled
    norms, found = (
        np.linalg.norm(counted_vectors(states, length, rows), axis=1),
        feature_statistics(store, "tokens").norms,
    )
    assert sum(found.counts) + found.zeros == len(norms)
    np.testing.assert_array_equal(found.counts, np.histogram(norms, bins=found.edges)[0])
    assert found.mean == pytest.approx(norms.mean(), rel=1e-6)
    assert found.median == pytest.approx(np.sort(norms)[(len(norms) - 1) // 2], rel=3e-3)
    assert (found.smallest, found.largest) == pytest.approx((norms.min(), norms.max()), rel=1e-6)


def test_effective_rank_is_the_entropy_of_the_covariances_spectrum(filled):
    store, states, length, rows = filled
    spectrum = np.linalg.eigvalsh(np.cov(counted_vectors(states, length, rows).T, bias=True)).clip(1e-300)
    share = spectrum / spectrum.sum()
    found = feature_statistics(store, "tokens")
    assert found.effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
    assert found.spectrum_vectors == found.vectors


def test_a_sample_gives_the_spectrum_of_a_large_feature(filled, monkeypatch):
    store = filled[0]
    monkeypatch.setattr("sur.analysis.store.statistics.SPECTRUM_VECTORS", 20)
    found = feature_statistics(store, "tokens")
    assert 2 <= found.spectrum_vectors < 40 < found.vectors
    assert 1 <= found.effective_rank <= DIM


def test_statistics_do_not_depend_on_how_rows_are_cut_into_blocks(filled, monkeypatch):
    store = filled[0]
    before = feature_statistics(store, "tokens")
    monkeypatch.setattr("sur.analysis.store.blocks.BLOCK_VALUE_BYTES", 3 * TOKENS * DIM * 4)
    after = feature_statistics(store, "tokens")
    assert after.norms.counts == before.norms.counts and after.dead == before.dead
    assert after.deviation == pytest.approx(before.deviation, rel=1e-13)


def test_a_large_mean_does_not_cancel_the_deviation(tmp_path):
    store = Store.create(tmp_path / "s.zarr", 64)
    add_rows(store, 0, 200)
    values = (10_000 + np.random.default_rng(0).standard_normal((200, DIM))).astype(np.float32)
    store.ensure_feature(FeatureSpec("x", "llm", {}, {"states": ArraySpec("float32", (DIM,))}))
    write(store, "x", {"states": values})
    found = feature_statistics(store, "x")
    np.testing.assert_allclose(found.dimension_deviation, values.astype(np.float64).std(axis=0), rtol=1e-10)
    assert found.effective_rank > 4.5 and found.token_lengths == ()


def test_massive_dimensions_are_over_100_and_1000_times_the_rows_median(tmp_path):
    store = Store.create(tmp_path / "s.zarr", 8)
    add_rows(store, 0, 3)
    states = np.full((3, TOKENS, DIM), 0.1, np.float32)
    states[0, 0, 2], states[0, 1, 2] = 150, -101  # massive, twice in one row
    states[1, 0, 1] = 99  # 990 times the median, but not over 100
    states[2] = 0.5
    states[2, 0, 4] = 120  # over 100, but only 240 times the median
    spec = {"states": ArraySpec("bfloat16", (TOKENS, DIM)), "length": ArraySpec("int32", ())}
    store.ensure_feature(FeatureSpec("x", "llm", {}, spec))
    write(store, "x", {"states": float32_to_bfloat16(states), "length": np.full(3, TOKENS, np.int32)})
    found = feature_statistics(store, "x")
    (massive,) = found.massive
    assert (massive.dimension, massive.activations, massive.rows, massive.largest) == (2, 2, 1, 150)
    ordinary = np.delete(states.reshape(-1, DIM).astype(np.float64), [0, 1], axis=0)
    share = np.linalg.eigvalsh(np.cov(ordinary.T, bias=True)).clip(1e-300) / np.trace(np.cov(ordinary.T, bias=True))
    assert found.effective_rank_ordinary == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)


def test_numbers_that_are_not_finite_are_counted_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("sur.cache.contents.features.all_finite", lambda values, dtype: True)  # the writer refuses them
    store = Store.create(tmp_path / "s.zarr", 8)
    add_rows(store, 0, 6)
    values = np.random.default_rng(0).standard_normal((6, DIM)).astype(np.float32)
    values[1, 2], values[1, 3], values[4, 0] = np.nan, np.inf, -np.inf
    store.ensure_feature(FeatureSpec("x", "llm", {}, {"states": ArraySpec("float32", (DIM,))}))
    write(store, "x", {"states": values})
    found, good = feature_statistics(store, "x"), values[[0, 2, 3, 5]].astype(np.float64)
    assert (found.nan, found.infinite, found.vectors, found.rows) == (1, 2, 4, 6)
    assert found.mean == pytest.approx(good.mean(), rel=1e-12)


def test_a_mask_says_which_tokens_count(tmp_path):
    store = Store.create(tmp_path / "s.zarr", 8)
    add_rows(store, 0, 2)
    states = np.arange(2 * 4 * DIM, dtype=np.float32).reshape(2, 4, DIM)
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 1]], np.uint8)
    spec = {
        "states": ArraySpec("float32", (4, DIM)),
        "length": ArraySpec("int32", ()),
        "mask": ArraySpec("uint8", (4,)),
    }
    store.ensure_feature(FeatureSpec("x", "text", {}, spec))
    write(store, "x", {"states": states, "mask": mask, "length": np.array([4, 4], np.int32)})
    found = feature_statistics(store, "x")
    assert found.vectors == 3 and found.token_lengths == ((1, 1), (2, 1))
    assert found.mean == pytest.approx(np.concatenate([states[0, [0, 2]], states[1, [3]]]).mean())
    np.testing.assert_allclose(row_vectors(store, "x")[0], [states[0, [0, 2]].mean(axis=0), states[1, 3]])


def test_statistics_of_a_feature_that_is_not_there_name_those_that_are(filled):
    with pytest.raises(UnknownFeature, match="tokens"):
        feature_statistics(filled[0], "absent")


def test_pooled_vectors_are_means_over_the_prompts_own_tokens(filled):
    store, states, length, rows = filled
    found, slots = row_vectors(store, "tokens")
    want = np.stack([states[row, : length[row]].mean(axis=0) for row in rows])
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert [record.simple for record in row_records(store, slots.tolist())] == [f"prompt number {n}" for n in rows]


def test_latents_are_averaged_over_a_grid(tmp_path):
    store = Store.create(tmp_path / "s.zarr", 8)
    add_rows(store, 0, 2)
    latents = np.random.default_rng(0).standard_normal((2, 2, 3, 16, 4)).astype(np.float32)
    spec = {name: ArraySpec("float32", (2, 3, 16, 4)) for name in ("mean", "logvar")}
    store.ensure_feature(FeatureSpec("vae.x", "vae", {}, spec))
    write(store, "vae.x", {"mean": latents, "logvar": latents})
    want = latents[:, 0].reshape(2, 3, 8, 2, 4).mean(axis=3).reshape(2, -1)
    np.testing.assert_allclose(row_vectors(store, "vae.x")[0], want, rtol=1e-5, atol=1e-6)
    found = feature_statistics(store, "vae.x")
    assert (found.dim, found.vectors) == (3, 2 * 2 * 16 * 4)
    np.testing.assert_allclose(found.dimension_mean, latents.astype(np.float64).mean(axis=(0, 1, 3, 4)), rtol=1e-10)


def test_vectors_are_kept_and_only_what_is_new_is_computed(filled, monkeypatch):
    store, states, length, _ = filled
    first = np.array(row_vectors(store, "tokens")[0])
    computed = []
    original = vectors_module.partition_blocks
    monkeypatch.setattr(
        vectors_module, "partition_blocks", lambda s, n, r: (computed.append(r.partition), original(s, n, r))[1]
    )
    np.testing.assert_array_equal(row_vectors(store, "tokens")[0], first)
    assert computed == []
    add_rows(store, 21, 3)
    write(store, "tokens", {"states": np.float16(states[:, :, :]).repeat(2, 0)[:24], "length": length.repeat(2)[:24]})
    grown, slots = row_vectors(Store.open(store.path), "tokens")
    assert computed == [3] and len(grown) == len(slots) == 22
    np.testing.assert_array_equal(grown[:19], first)


def test_values_that_were_written_anew_are_computed_anew(filled):
    store, states, length, _ = filled
    before = row_vectors(store, "tokens")[0]
    old = np.array(before)
    store.discard("tokens", 0)
    store.write_partition("tokens", 0, {"states": np.float16(states[:8] + 1), "length": length[:8]})
    after, slots = row_vectors(store, "tokens")
    assert len(slots) == 20 and not np.array_equal(after[0], old[0])
    np.testing.assert_array_equal(after[8:], old[7:])
    np.testing.assert_array_equal(before, old)  # who has the older file open keeps it


def test_vectors_come_also_where_nothing_can_be_kept(filled, tmp_path, monkeypatch, caplog):
    want = np.array(row_vectors(filled[0], "tokens")[0])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUR_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(row_vectors(filled[0], "tokens")[0], want)
    assert "are not kept" in caplog.text


def test_a_disk_that_is_full_is_noticed_before_anything_is_mapped_onto_it(filled, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    want = np.array(row_vectors(filled[0], "tokens")[0])
    for file in (vectors_module.cache_folder() / "vectors").iterdir():
        file.unlink()
    monkeypatch.setattr(os, "posix_fallocate", full)
    np.testing.assert_array_equal(row_vectors(filled[0], "tokens")[0], want)
    assert "No space left" in caplog.text and not [*(vectors_module.cache_folder() / "vectors").iterdir()]


def test_vectors_outlive_their_file(filled, monkeypatch):
    """Another process that renews them takes the file away as soon as it is looked at."""
    store, states, length, _ = filled
    want, original = np.array(row_vectors(store, "tokens")[0]), vectors_module._VectorFile._read

    def read_and_lose(kept):
        found = original(kept)
        for file in kept.folder.glob("*.npy"):
            file.unlink()
        return found

    monkeypatch.setattr(vectors_module._VectorFile, "_read", read_and_lose)
    np.testing.assert_array_equal(row_vectors(store, "tokens")[0], want)
    monkeypatch.setattr(vectors_module._VectorFile, "_read", original)
    row_vectors(store, "tokens")
    monkeypatch.setattr(vectors_module._VectorFile, "_read", read_and_lose)
    add_rows(store, 21, 3)
    write(store, "tokens", {"states": np.float16(states).repeat(2, 0)[:24], "length": length.repeat(2)[:24]})
    np.testing.assert_array_equal(row_vectors(Store.open(store.path), "tokens")[0][:19], want)


@pytest.mark.parametrize("standardised", [False, True])
def test_neighbours_are_those_of_brute_force(tmp_path, monkeypatch, standardised):
    monkeypatch.setattr("sur.analysis.store.neighbours.VECTORS_AT_ONCE", 32)
    store = Store.create(tmp_path / "s.zarr", 64)
    add_rows(store, 0, 150)
    values = (
        np.random.default_rng(3).standard_normal((150, 16)).astype(np.float32) * np.arange(1, 17, dtype=np.float32) + 2
    )
    store.ensure_feature(FeatureSpec("x", "llm", {}, {"states": ArraySpec("float32", (16,))}))
    write(store, "x", {"states": values}, missing={7})
    slots = np.array([n for n in range(150) if n != 7])
    wide = values[slots].astype(np.float64)
    if standardised:
        wide = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    neighbours = Neighbours(store, "x", standardised)
    for slot in (0, 80, 149):
        cosines = unit @ unit[slots == slot][0]
        cosines[slots == slot] = -2
        want = np.argsort(-cosines)[:5]
        found = neighbours.nearest(slot, 5)
        assert [each.slot for each in found] == slots[want].tolist()
        np.testing.assert_allclose([each.similarity for each in found], cosines[want], atol=1e-6)
    assert len(neighbours.nearest(0, 1000)) == 148
    with pytest.raises(NotInStore, match="slot 7 has no value of x"):
        neighbours.nearest(7, 3)


def test_search_finds_all_words_in_either_prompt_and_any_case(filled):
    store = filled[0]
    search = PromptSearch(store)
    assert search.find("NUMBER 13 8k") == [13]
    assert search.find("complex 1", limit=2) == [1, 10]
    assert search.find("no such words") == search.find("  ") == search.find("prompt", limit=0) == []
    add_rows(store, 21, 1)
    assert [row.simple for row in row_records(store, search.find("Number 21"))] == ["prompt number 21"]


def test_a_rows_neighbours_are_reported_only_when_asked_for(filled, tmp_path, monkeypatch):
    monkeypatch.setenv("SUR_CACHE", str(tmp_path / "cache"))
    store = filled[0]
    (feature,) = describe_row(store, 5).features
    assert describe_row(store, 5).neighbours == {} and not (tmp_path / "cache").exists()
    near = describe_row(store, 5, neighbours=3).neighbours[feature.name]
    want = Neighbours(store, feature.name, standardised=True).nearest(5, 3)
    assert [(row.slot, row.similarity) for row in near] == [(each.slot, each.similarity) for each in want]
    assert [row.simple for row in near] == [f"prompt number {each.slot}" for each in want]
    assert describe_row(store, 4, neighbours=3).neighbours == {}


def test_a_row_is_described_by_slot_id_or_prefix(filled):
    store, states, length, _ = filled
    row = describe_row(store, 5)
    assert (row.simple, row.complex, row.image, row.slot, row.partition) == (
        "prompt number 5",
        "Complex 5, 8K",
        "5.png",
        5,
        0,
    )
    assert describe_row(store, row.id) == describe_row(store, row.id[:9].upper()) == describe_row(store, "#5") == row
    (feature,) = row.features
    values = states[5, : length[5]]
    assert feature.tokens == length[5] == len(feature.token_norms)
    assert feature.token_norms == pytest.approx(np.linalg.norm(values, axis=1), rel=1e-6)
    assert feature.norm == pytest.approx(np.linalg.norm(values.mean(axis=0)), rel=1e-5)
    assert feature.largest == np.abs(values).max()
    assert describe_row(store, 4).features[0].missing == "no complex prompt"
    json.dumps(row.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (900, "slot 900 holds no row"),
        (23, "slot 23 holds no row"),
        ("12x", "is no row"),
        ("abcdefabcdef", "begins with"),
    ],
)
def test_rows_that_are_not_there_are_said_to_be_so(filled, key, message):
    with pytest.raises(NotInStore, match=message):
        describe_row(filled[0], key)


def test_a_prefix_of_several_ids_is_refused_with_their_names(tmp_path):
    store = Store.create(tmp_path / "s.zarr", 8)
    ids = [b"\xab\xcd\x01" + bytes(13), b"\xab\xcd\x11" + bytes(13)]
    store.add_rows(RowRecord(each, "a") for each in ids)
    with pytest.raises(NotInStore, match=f"2 rows' ids begin with abcd .{ids[0].hex()}, {ids[1].hex()}"):
        describe_row(store, "abcd")
    assert describe_row(store, "abcd0").slot == 0


def test_split_share_is_what_the_loader_splits_by(shapes_config):
    from sur.cache import Loader, Selection

    store = Store.open(shapes_config.store.path)
    selection = Selection(split="validation", validation_fraction=0.2)
    held = Loader(store, ["text.shapes.simple"], batch_size=1, selection=selection).slots
    shares = [describe_row(store, slot).split_share for slot in range(96)]
    assert sorted(held.tolist()) == [slot for slot, share in enumerate(shares) if share < 0.2]


def test_pictures_are_what_the_vae_decodes(shapes_config):
    store = Store.open(shapes_config.store.path)
    pictures = LatentPictures(store)
    assert pictures.feature == "vae.shapes.64" and "decoded by the VAE in" in pictures.how
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained("sur/shapes/weights/vae")
    latent = torch.from_numpy(store.read("vae.shapes.64", np.array([3]))["mean"][0, :1].astype(np.float32))
    with torch.no_grad():
        want = ((vae.decode(latent).sample[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).numpy()  # pyright: ignore
    assert np.abs(np.asarray(pictures.picture(3)).astype(float) - want).max() <= 1


def test_a_row_without_latent_says_why(shapes_config):
    store = Store.open(shapes_config.store.path)
    unpaired = next(iter(store.missing("vae.shapes.64")))
    with pytest.raises(NotInStore, match="row has no image"):
        LatentPictures(store).picture(unpaired)
    with pytest.raises(NotInStore, match="there is no such row"):
        LatentPictures(store).picture(10**6)


def test_without_the_vae_there_are_false_colours_and_the_reason(shapes_config, tmp_path):
    shutil.copytree(shapes_config.store.path, tmp_path / "store.zarr")
    pictures = LatentPictures(Store.open(tmp_path / "store.zarr"))
    assert pictures.how.startswith("false colours") and "no run configuration lies beside" in pictures.how
    first, second = (np.asarray(pictures.picture(slot)) for slot in (0, 1))
    assert first.shape == (64, 64, 3) and (first != second).any() and first.std() > 10


def test_false_colours_wait_for_the_first_latent(tmp_path):
    store = Store.create(tmp_path / "s.zarr", PER_PARTITION)
    add_rows(store, 0, PER_PARTITION)
    arrays = {name: ArraySpec("float32", (1, 4, 6, 6)) for name in ("mean", "logvar")}
    store.ensure_feature(FeatureSpec("vae.a", "vae", {"model": "m"}, arrays))
    pictures = LatentPictures(store)
    assert pictures.how.startswith("false colours") and not pictures.faithful
    latents = np.random.default_rng(0).standard_normal((PER_PARTITION, 1, 4, 6, 6)).astype(np.float32)
    store.write_partition("vae.a", 0, {"mean": latents, "logvar": latents})
    assert np.asarray(pictures.picture(0)).std() > 10


def test_what_decodes_is_made_once_however_many_ask(filled, monkeypatch):
    made = []

    def slow(*_):
        made.append(time.sleep(0.05))
        raise NotInStore("no VAE")

    store = filled[0]
    arrays = {name: ArraySpec("float32", (1, 4, 6, 6)) for name in ("mean", "logvar")}
    store.ensure_feature(FeatureSpec("vae.a", "vae", {"model": "m"}, arrays))
    latents = np.random.default_rng(0).standard_normal((21, 1, 4, 6, 6)).astype(np.float32)
    write(store, "vae.a", {"mean": latents, "logvar": latents})
    monkeypatch.setattr("sur.analysis.store.pictures.find_vae", slow)
    pictures = LatentPictures(store)
    asking = (lambda: pictures.how, lambda: pictures.picture(0), lambda: pictures.faithful)
    with ThreadPoolExecutor(6) as pool:
        [asked.result() for asked in [pool.submit(ask) for ask in asking * 2]]
    assert len(made) == 1


def test_a_vae_of_other_weights_is_not_used(shapes_config, tmp_path):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained("sur/shapes/weights/vae")
    with torch.no_grad():
        vae.decoder.conv_in.weight += 1
    vae.save_pretrained(tmp_path / "vae")
    pictures = LatentPictures(Store.open(shapes_config.store.path), vae=tmp_path / "vae")
    assert "false colours" in pictures.how and "has weights" in pictures.how


def test_a_store_without_latents_has_no_pictures(filled):
    pictures = LatentPictures(filled[0])
    assert pictures.feature is None and "no latents" in pictures.how
    with pytest.raises(NotInStore, match="`vae` section"):
        pictures.picture(0)


def test_a_store_equals_its_copy_by_checksum(shapes_config, tmp_path):
    shutil.copytree(shapes_config.store.path, tmp_path / "copy.zarr")
    found = compare_stores(Store.open(shapes_config.store.path), Store.open(tmp_path / "copy.zarr"))
    assert found.same and found.rows == 96 and all(each.by_checksum for each in found.features)
    json.dumps(found.to_json(), allow_nan=False)


def test_difference_joins_rows_by_id_and_measures_what_differs(filled, tmp_path):
    store, states, length, rows = filled
    other = Store.create(tmp_path / "other.zarr", 4)  # other rows, another order, other partitions
    other.add_rows(reversed([row for row in store.rows() if row.slot >= 6]))
    add_rows(other, 50, 1)
    spec = {"states": ArraySpec("float32", (TOKENS, DIM)), "length": ArraySpec("int32", ())}
    other.ensure_feature(FeatureSpec("tokens", "llm", {"model": "n"}, spec))
    changed = states.copy()
    changed[10] += 1
    changed[12] *= 2
    back = [*range(20, 5, -1), 0]
    write(other, "tokens", {"states": changed[back].astype(np.float32), "length": length[back]})
    found = compare_features(store, "tokens", other, "tokens")
    both = [row for row in rows if row >= 6]
    a, b = (values[both].reshape(len(both), -1).astype(np.float64) for values in (states, changed))
    by_name = {array.name: array for array in found.arrays}
    array = by_name["states"]
    assert (found.rows, found.only_a.rows, found.only_b.rows) == (len(both), 5, 2)
    assert ("identity.model", "m", "n") in found.identity
    assert by_name["length"].equal_rows == len(both) and array.equal_rows == len(both) - 2
    assert array.relative_error == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-12)
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert array.mean_cosine == pytest.approx(cosines.mean(), rel=1e-12)
    assert array.least_cosine == pytest.approx(cosines.min(), rel=1e-12)
    assert array.largest == np.abs(a - b).max()
    errors = np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)
    assert {row.slot_a for row in found.worst} == {10, 12}
    assert found.worst[0].relative_error == pytest.approx(errors.max(), rel=1e-12)
    assert not found.same


@pytest.mark.parametrize(
    ("dtype", "a", "b"), [("float64", 1.0, 1.0 + 1e-12), ("int64", 2**24, 2**24 + 1), ("int64", 2**60, 2**60 + 1)]
)
def test_values_are_equal_only_as_they_are_stored(tmp_path, dtype, a, b):
    stores = []
    for name, value in (("a", a), ("b", b)):
        store = Store.create(tmp_path / name, PER_PARTITION)
        add_rows(store, 0, 2)
        store.ensure_feature(FeatureSpec("f", "llm", {"model": "m"}, {"states": ArraySpec(dtype, (1,))}))
        write(store, "f", {"states": np.array([[1], [value]], dtype)})
        stores.append(store)
    found = compare_features(stores[0], "f", stores[1], "f")
    assert found.arrays[0].equal_rows == 1 and not found.same
    if value < 2**53:
        assert found.arrays[0].largest == pytest.approx(b - a, rel=1e-3)


def test_an_asset_that_is_not_computed_yet_differs_from_one_that_is(tmp_path):
    spec = FeatureSpec("null", "text", {"model": "m"}, {"states": ArraySpec("float32", (2,))})
    stores = [Store.create(tmp_path / name, PER_PARTITION) for name in "abc"]
    for store in stores:
        store.write_asset(spec, {"states": np.ones(2, np.float32)})
    for store in stores[1:]:  # as it is while it is written
        shutil.rmtree(store.path / "receipts" / "assets" / "null" / "00000")
    stores = [Store.open(store.path) for store in stores]
    found = compare_stores(stores[0], stores[1])
    assert found.assets_differing == (("null", (("values", "there", "not computed yet"),)),) and not found.same
    assert compare_stores(stores[1], stores[2]).same


def test_arrays_of_other_shapes_are_said_not_to_be_compared(shapes_config):
    store = Store.open(shapes_config.store.path)
    found = compare_features(store, "text.shapes.simple", store, "llm.smollm2-135m.l02.tokens")
    (states,) = [array for array in found.arrays if array.name == "states"]
    assert "(64, 128) and (56, 576)" in states.note and not found.same


def test_stores_differ_in_features_and_rows(filled, tmp_path):
    store = filled[0]
    other = Store.create(tmp_path / "other.zarr", 4)
    add_rows(other, 3, 20)
    found = compare_stores(store, other)
    assert (found.only_a.rows, found.only_b.rows, found.rows) == (3, 2, 18)
    assert found.features_only_a == ("tokens",) and not found.same
