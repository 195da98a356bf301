"""sur.features.plan and prepare: bytes and partitions from config.json alone, and a refusal of what cannot fit."""

import json

import numpy as np
import pytest
from tiny_run import save_models, save_rows, tiny_config

from sur.cache import ArraySpec, RowRecord, Store, row_id
from sur.cache.format.shard import Layout
from sur.config.run import load_config
from sur.features.encoders import build_encoders
from sur.features.extraction import extract
from sur.features.plan import EncoderFeatures, StoreState, plan_features, stored_array_bytes
from sur.features.prepare import make_plan, plan_extraction
from sur.support.errors import ConfigError, DoesNotFit
from sur.support.formatting import format_bytes

PUBLISHED = "tests/published"


@pytest.fixture
def surd(tmp_path):
    """Ten rows without pictures, one of them empty."""
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = [{"text": f"a picture of {n} cats", "prompt": f"{n} cats, 8k"} for n in range(9)]
    lines.append({"text": "", "prompt": "nothing"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def planned(config, surd, tmp_path, *overrides):
    return load_config(
        f"configs/{config}.yaml",
        [f"data.path={surd}", f"store.path={tmp_path}/store.zarr", "data.image_column=null", *overrides],
    )


def encoders_of(config):
    return build_encoders(config.llm, config.text, config.vae)


@pytest.mark.parametrize(
    ("config", "model", "bytes_per_row"),
    [
        (
            "sd15-llama13b-released",
            "llama-13b",
            {
                "llm.llama-13b.l40.mean": 5120 * 2 + 4,
                "text.sd15.simple": 77 * 768 * 2 + 4,
                "text.sd15.complex": 77 * 768 * 2 + 4,
                "vae.sd15.512": 2 * 2 * 4 * 64 * 64 * 2,
            },
        ),
        (
            "sd15-qwen3-8b",
            "qwen3-8b",
            {
                "llm.qwen3-8b.l18.tokens": 77 * 4096 * 2 + 4,
                "llm.qwen3-8b.l27.tokens": 77 * 4096 * 2 + 4,
                "text.sd15.simple": 77 * 768 * 2 + 4,
                "text.sd15.complex": 77 * 768 * 2 + 4,
                "vae.sd15.512": 2 * 2 * 4 * 64 * 64 * 2,
            },
        ),
    ],
)
def test_published_configs_give_the_bytes_of_a_row(config, model, bytes_per_row, surd, tmp_path):
    settings = planned(config, surd, tmp_path, f"llm.model={PUBLISHED}/{model}", f"base_model={PUBLISHED}/sd15")
    records = [RowRecord(row_id("a", "b", b"c"), "a", "b", "c.png")]
    plan = make_plan(settings, encoders_of(settings), records, [])
    rows = [feature for feature in plan.features if feature.kind != "readout"]
    assert {feature.name: feature.bytes_per_row for feature in rows} == bytes_per_row
    for feature in rows:
        packed = any(spec.packed for spec in feature.arrays.values())
        assert packed == feature.name.endswith(".tokens")
        if not packed:
            shards = (Layout(spec, settings.store.rows_per_partition) for spec in feature.arrays.values())
            written = [layout.encode(np.zeros((1, *layout.spec.shape), layout.dtype))[0] for layout in shards]
            assert feature.bytes_to_write == sum(len(memoryview(p).cast("B")) for pieces in written for p in pieces)


def test_the_read_out_is_planned_from_the_denoisers_config_alone(surd, tmp_path):
    config = planned("sd15-qwen3-8b", surd, tmp_path, f"llm.model={PUBLISHED}/qwen3-8b", f"base_model={PUBLISHED}/sd15")
    plan = make_plan(config, encoders_of(config), [], [])
    (readout,) = [feature for feature in plan.features if feature.kind == "readout"]
    widths = 320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320
    queries = config.readout.queries_per_layer
    assert sorted(spec.shape[1] for name, spec in readout.arrays.items() if "queries" in name) == sorted(widths)
    assert readout.bytes_to_write == sum(4 * width * (queries + 2 * 768) for width in widths)
    assert plan.bytes_to_write >= readout.bytes_to_write


def test_a_layer_that_the_model_lacks_is_refused(surd, tmp_path):
    settings = planned(
        "sd15-llama13b-released",
        surd,
        tmp_path,
        f"llm.model={PUBLISHED}/llama-13b",
        f"base_model={PUBLISHED}/sd15",
        "llm.layers=[41]",
        "vae=null",
    )
    with pytest.raises(ConfigError, match="asks for layer 41"):
        plan_extraction(settings)


@pytest.fixture
def text_only(surd, tmp_path):
    overrides = (
        "llm=null",
        "vae=null",
        f"base_model={PUBLISHED}/sd15",
        "text.slug=sd",
        "store.rows_per_partition=4",
    )
    return planned("sd15-qwen3-8b", surd, tmp_path, *overrides)


def test_rows_are_counted_and_nothing_is_written(text_only, tmp_path):
    plan = plan_extraction(text_only)
    assert (plan.rows_valid, plan.rows_new, plan.rows_stored, len(plan.quarantined)) == (9, 9, 0, 1)
    assert [feature.partitions_total for feature in plan.features] == [3, 3]
    assert not text_only.store.path.exists()


def test_rows_in_the_store_are_not_new(text_only):
    store = Store.create(text_only.store.path, 4)
    rows = [(f"a picture of {n} cats", f"{n} cats, 8k") for n in range(5)]
    store.add_rows(RowRecord(row_id(s, c, None), s, c) for s, c in rows)
    plan = plan_extraction(text_only)
    assert (plan.rows_new, plan.rows_stored) == (4, 5)
    assert [feature.partitions_total for feature in plan.features] == [3, 3]


def test_what_cannot_fit_is_refused_with_both_figures(text_only, monkeypatch):
    monkeypatch.setattr("sur.features.prepare.free_bytes", lambda path: 1000)
    plan = plan_extraction(text_only)
    with pytest.raises(DoesNotFit) as caught:
        plan.require_space()
    assert format_bytes(plan.bytes_to_write) in str(caught.value)
    assert "1.0 KB" in str(caught.value)
    assert "text.sd" in str(caught.value)


def test_bytes_of_arrays():
    assert stored_array_bytes(ArraySpec("bfloat16", (3, 5)), None) == 30
    assert stored_array_bytes(ArraySpec("int32", ()), None) == 4
    packed = ArraySpec("bfloat16", (100, 8), "zstd")
    assert stored_array_bytes(packed, 25.0) == 100 * 8 * 2 / 4
    assert stored_array_bytes(packed, 200.0) == stored_array_bytes(packed, None) == packed.nbytes


def test_a_plan_is_arithmetic_on_what_the_store_holds():
    arrays = {"states": ArraySpec("float16", (4,)), "length": ArraySpec("int32", ())}
    encoder = EncoderFeatures("text", "simple", {"old": arrays, "half": arrays, "new": arrays}, tokens_per_row=2.5)
    state = StoreState("s3://bucket/store", 10, rows=25, partitions=3, pending={"old": 0, "half": 1})
    old, half, new = plan_features(state, [encoder], rows_new=15)
    assert [feature.partitions_done for feature in (old, half, new)] == [3, 2, 0]
    assert {feature.partitions_total for feature in (old, half, new)} == {5}
    assert [feature.rows_to_write for feature in (old, half, new)] == [15, 25, 40]
    assert [feature.tokens for feature in (old, half, new)] == [round(2.5 * rows) for rows in (15, 25, 40)]
    assert [feature.bytes_to_write for feature in (old, half, new)] == [n * (10 * 12 + 2 * 24) for n in (2, 3, 5)]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (2.5e9, "2.5 GB"), (3e15, "3000.0 TB")]
)
def test_bytes_are_written_for_people(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize("rows", [1, 16, 37])
def test_few_rows_are_not_planned_as_whole_partitions(rows):
    arrays = {"mean": ArraySpec("float16", (4, 64, 64)), "length": ArraySpec("int32", ())}
    encoder = EncoderFeatures("vae", "image", {"vae": arrays})
    (planned,) = plan_features(StoreState("store", 512), [encoder], rows)
    assert planned.rows_to_write == rows
    assert rows * 32772 < planned.bytes_to_write < rows * 32772 + 512 * 20 + 100
    state = StoreState("store", 512, rows=520, partitions=2, pending={"vae": 1}, pending_rows={"vae": 8})
    (rest,) = plan_features(state, [encoder], 0)
    assert rest.rows_to_write == 8 and rest.bytes_to_write < 9 * 32772 + 512 * 20


def test_a_plan_is_what_an_extraction_writes(tmp_path):
    rows = save_rows(tmp_path / "rows", pictures=5, broken=False)
    config = tiny_config(tmp_path, save_models(tmp_path / "models"), rows)
    planned = {feature.name: feature.bytes_to_write for feature in plan_extraction(config).features}
    extract(config)
    made = {feature.name: feature.bytes_on_disk for feature in Store.open(config.store.path).describe().features}
    assert made == {name: planned[name] for name in made} and len(made) == 5
    Store.open(config.store.path, writable=True).discard("vae.pipe.32", 2)
    (rest,) = [feature for feature in plan_extraction(config).features if feature.kind == "vae"]
    assert rest.rows_to_write == 2
    assert rest.bytes_to_write == 2 * (2 * (512 + 4)) + 2 * (4 * 16 + 4)
