"""The store is plain Zarr v3: other libraries read the same numbers, and would write the same bytes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorstore
import zarr
from cache_samples import (
    LATENTS,
    NULL,
    STATES,
    extract,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
)
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from sur.cache import ArraySpec, IncompleteFeature, Store
from sur.cache.format.checksum import CRC_BYTES
from sur.cache.format.shard import Layout

ARRAYS = [(spec.name, array) for spec in (STATES, LATENTS) for array in spec.arrays]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("format") / "store.zarr"
    extract(path)
    return Store.open(path)


def test_zarr_lists_every_node_without_a_warning(store):
    group = zarr.open_group(str(store.path), mode="r")
    names = {name for name, _ in group.members(max_depth=None)}
    assert {f"features/{f}/{a}" for f, a in ARRAYS} | {"rows/simple", "receipts/rows/00003"} <= names
    str(group.tree())
    assert group["features/" + STATES.name + "/states"].attrs["bits_of"] == "bfloat16"


@pytest.mark.parametrize("feature, array", ARRAYS)
def test_zarr_and_tensorstore_read_the_numbers_of_the_store(store, feature, array):
    expected = store.read(feature)[array]
    path = store.path / "features" / feature / array
    from_zarr = zarr.open_array(str(path), mode="r")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    from_tensorstore = tensorstore.open(spec, read=True).result()
    for other in (np.asarray(from_zarr[:]), from_tensorstore.read().result()):
        assert other.dtype == expected.dtype
        assert np.array_equal(other[: len(expected)], expected)


def test_zarr_reads_rows_and_assets(store):
    group = zarr.open_group(str(store.path), mode="r")
    for name in ("simple", "complex", "image"):
        texts = [str(text) for text in np.asarray(group["rows"][name][:])]  # pyright: ignore
        assert texts[: store.n_rows] == [getattr(row, name) for row in store.rows()]
        assert not any(texts[store.n_rows :])
    assert np.array_equal(group["rows/id"][:], store.row_ids())  # pyright: ignore
    assert np.array_equal(group["assets/null/states"][:], store.read_asset(NULL.name)["states"])  # pyright: ignore


@pytest.mark.parametrize(
    "dtype, shape", [("float32", (3, 50)), ("bool", ()), ("int64", (2,)), ("float16", (2, 4, 8, 8)), ("uint8", (600,))]
)
def test_shards_are_byte_for_byte_what_zarr_writes(dtype, shape):
    layout = Layout(ArraySpec(dtype, shape), 6)
    values = (np.random.default_rng(0).normal(size=(6, *shape)) * 9).astype(dtype)
    values[2] = 0
    memory = MemoryStore()
    array = zarr.create_array(
        memory,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(layout.rows_per_chunk, *shape),
        shards=values.shape,
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": True},
        fill_value=0,
    )
    array[...] = values
    (key,) = [key for key in memory._store_dict if key.startswith("c/")]
    data, crcs = layout.encode(values)
    data = b"".join(data)
    assert data == memory._store_dict[key].to_bytes()
    assert len(data) == layout.chunks * (layout.chunk_bytes + CRC_BYTES) + layout.index_bytes
    assert layout.fault(data, crcs) == ""


@pytest.mark.parametrize("group", [None, "rows", "features", f"features/{STATES.name}"])
def test_consolidated_metadata_are_no_damage_and_never_older_than_the_store(tmp_path, group):
    extract(tmp_path / "store.zarr", 20)
    store = Store.open(tmp_path / "store.zarr", writable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr-python: not yet in the specification
        zarr.consolidate_metadata(str(store.path), path=group)
    consolidated = store.path / (group or "") / "zarr.json"
    old = consolidated.read_bytes()
    assert b"consolidated_metadata" in old and store.verify() == [] and store.n_rows == 20
    store.add_rows(sample_rows(9, first=80))
    arrays = {"": ["rows/id", f"features/{STATES.name}/states"], "rows": ["id"], f"features/{STATES.name}": ["states"]}
    for folder, names in arrays.items():
        opened = zarr.open_group(str(store.path / folder), mode="r")
        assert [opened[name].shape[0] for name in names] == [40] * len(names)  # pyright: ignore
    assert store.verify() == []
    consolidated.write_bytes(old)  # as left by an older version of this package
    (damage,) = store.verify()
    assert damage.file == "/".join(filter(None, (group, "zarr.json"))) and "consolidated" in damage.problem
    assert store.repair([damage]) == [] and store.verify() == []


def test_a_deleted_shard_is_zeros_to_zarr_and_an_error_here(tmp_path):
    """The docs say so, and to run `sur verify` first."""
    extract(tmp_path / "store.zarr", 20)
    (tmp_path / f"store.zarr/features/{LATENTS.name}/mean/c.1.0.0.0.0").unlink()
    group = zarr.open_group(str(tmp_path / "store.zarr"), mode="r")
    assert not np.any(group[f"features/{LATENTS.name}/mean"][8:16])  # pyright: ignore
    with pytest.raises(IncompleteFeature):
        Store.open(tmp_path / "store.zarr").read(LATENTS.name)
