"""Packed features: the same numbers for us, for zarr and for tensorstore; rounding within its stated error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorstore
import zarr
from cache_samples import (
    ALL,
    STATES,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
    sample_values,
)

from sur.cache import (
    ArraySpec,
    BadValues,
    CorruptStore,
    FeatureSpec,
    IdentityMismatch,
    Loader,
    Resident,
    Store,
    Windowed,
    bfloat16_to_float32,
)
from sur.cache.format.codecs import CODECS

PACKED = [codec for codec in CODECS if codec != "raw"]


def spec(codec: str, keep_bits: int = 0) -> FeatureSpec:
    arrays = {
        "states": ArraySpec("bfloat16", (300,), codec, keep_bits),
        "mean": ArraySpec("float32", (4, 40), codec, keep_bits),
        "length": ArraySpec("int32", (), codec),
    }
    return FeatureSpec(f"llm.{codec}.mean", "llm", {"model": "small"}, arrays)


def made(path, feature: FeatureSpec, rows: int = 20) -> Store:
    store = Store.open_or_create(path, 8)
    store.add_rows(sample_rows(rows))
    store.ensure_feature(feature)
    for partition in store.pending(feature.name):
        store.write_partition(feature.name, partition, sample_values(feature, store.rows(partition)))
    return store


@pytest.mark.parametrize("codec", PACKED)
def test_packed_values_come_back_exactly_in_every_way_of_reading(tmp_path, codec):
    feature = spec(codec)
    store = made(tmp_path / "s.zarr", feature)
    expected = sample_values(feature, store.rows())
    for name in feature.arrays:
        assert np.array_equal(store.read(feature.name)[name], expected[name])
        few = Store.open(store.path).read(feature.name, np.array([19, 2, 9]))[name]
        assert np.array_equal(few, expected[name][[19, 2, 9]])
        assert np.array_equal(Store.open(store.path).read_partition(feature.name, 2)[name], expected[name][16:])
    for reader in (Resident, Windowed):
        loader = Loader(store, [feature.name], batch_size=4, selection=ALL, reader=reader)
        assert loader.order.window
        for batch in loader.batches():
            assert np.array_equal(batch.arrays[f"{feature.name}/mean"].numpy(), expected["mean"][batch.slots])
    assert store.verify() == []


@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")  # pcodec; said in docs/store.md
def test_zarr_reads_packed_arrays(tmp_path, codec):
    feature = spec(codec)
    store = made(tmp_path / "s.zarr", feature)
    group = zarr.open_group(str(store.path), mode="r")
    for name, values in sample_values(feature, store.rows()).items():
        read = np.asarray(group[f"features/{feature.name}/{name}"][:])  # pyright: ignore
        assert np.array_equal(read[:20], values) and not read[20:].any()


@pytest.mark.parametrize("codec", [codec for codec in PACKED if codec != "pcodec"])
def test_tensorstore_reads_packed_arrays(tmp_path, codec):
    feature = spec(codec)
    store = made(tmp_path / "s.zarr", feature)
    for name, values in sample_values(feature, store.rows()).items():
        path = str(store.path / "features" / feature.name / name)
        opened = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}, read=True)
        assert np.array_equal(opened.result().read().result()[:20], values)


@pytest.mark.parametrize("codec", PACKED)
@pytest.mark.parametrize("offset", [40, -30])
def test_a_flipped_bit_in_a_packed_shard_is_found_and_never_served(tmp_path, codec, offset):
    feature = spec(codec)
    store = made(tmp_path / "s.zarr", feature)
    path = store.path / f"features/{feature.name}/mean/c.1.0.0"
    data = bytearray(path.read_bytes())
    data[offset] ^= 8
    path.write_bytes(data)
    (damage,) = store.verify()
    assert (damage.feature, damage.partition) == (feature.name, 1)
    for reader in (Resident, Windowed):
        with pytest.raises(CorruptStore, match="checksum"):
            opened = Store.open(path.parents[3])
            list(Loader(opened, [feature.name], batch_size=4, selection=ALL, reader=reader).batches())
    with pytest.raises(CorruptStore, match="checksum"):
        Store.open(store.path).read(feature.name, np.arange(8, 16))


def test_rounding_keeps_within_its_error_and_packs_better(tmp_path):
    sizes = {}
    for keep in (0, 3):
        feature = spec("blosc-bitshuffle", keep)
        store = made(tmp_path / f"{keep}.zarr", feature)
        exact, read = sample_values(feature, store.rows()), store.read(feature.name)
        for name, convert in (("states", bfloat16_to_float32), ("mean", np.asarray)):
            error = np.abs(convert(read[name]) / convert(exact[name]) - 1).max()
            assert error == 0 if keep == 0 else 0 < error <= 2 ** -(keep + 1)
        assert np.array_equal(read["length"], exact["length"])
        sizes[keep] = sum(shard.bytes for receipt in store.receipts(feature.name) for shard in receipt.shards.values())
    assert sizes[3] < 0.8 * sizes[0]


def test_another_codec_or_rounding_is_another_identity(tmp_path):
    store = made(tmp_path / "s.zarr", spec("zstd"))
    for other in (spec("pcodec"), spec("zstd", keep_bits=5)):
        with pytest.raises(IdentityMismatch, match=r"arrays\.states\.(codec|keep_bits)"):
            store.ensure_feature(replace(other, name="llm.zstd.mean"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("float32", (3,), "lzma"), "Use one of: raw, zstd"),
        (("uint8", (3,), "pcodec"), "elements of 2, 4 or 8 bytes"),
        (("int32", (3,), "raw", 4), "is for floats"),
        (("float32", (3,), "raw", -1), "must be positive"),
    ],
)
def test_packings_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(BadValues, match=message):
        ArraySpec(*arguments)


def test_a_plain_features_attributes_do_not_mention_packing():
    assert STATES.attributes()["arrays"]["states"] == {"dtype": "bfloat16", "shape": [300]}


@pytest.mark.parametrize("dtype, largest", [("float16", 65504), ("float32", 3.4e38), ("bfloat16", 0x7F7F)])
def test_rounding_up_to_infinity_is_refused_like_any_other(tmp_path, dtype, largest):
    store = Store.create(tmp_path / "s.zarr", 8)
    store.add_rows(sample_rows(1))
    feature = FeatureSpec("x", "x", {}, {"states": ArraySpec(dtype, (300,), "raw", 3)})
    store.ensure_feature(feature)
    values = np.full((1, 300), largest, dtype="uint16" if dtype == "bfloat16" else dtype)
    with pytest.raises(BadValues, match="not finite"):
        store.write_partition("x", 0, {"states": values})
    with pytest.raises(BadValues, match="keep_bits must be positive"):
        ArraySpec(dtype, (300,), "raw", 60)
