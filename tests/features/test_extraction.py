"""sur.features.extraction and sur.features.partition: what is computed, copied, left out, and never computed twice."""

import importlib.metadata
import json
import logging
import shutil
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from photographs import surd as surd
from tiny_run import ROWS_PER_PARTITION, save_models, save_rows, store_files, tiny_config

from sur.analysis.store.rows import describe_row
from sur.cache import IdentityMismatch, Loader, Selection, Store
from sur.cache.compact import compact
from sur.cache.storage.local import LocalStorage
from sur.data import RowError, RowSource, open_rows, scan
from sur.features import extraction
from sur.features.extraction import Extraction, extract
from sur.features.partition import may_pass
from sur.features.prepare import plan_extraction, prepare
from sur.support.errors import ConfigError
from sur.support.images import decode


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return save_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, models, rows):
    """A run that has been extracted in one go; tests only read it."""
    config = tiny_config(tmp_path_factory.mktemp("finished"), models, rows)
    done = extract(config)
    return config, done


@pytest.fixture
def config(tmp_path, models, rows):
    return tiny_config(tmp_path, models, rows)


@pytest.fixture
def prepared(config):
    """An open extraction whose store has the rows and the features, and no values."""
    with prepared_extraction(config) as opened:
        yield opened


@contextmanager
def prepared_extraction(config):
    with Extraction(config) as opened:
        prepare(config, list(opened.encoders.values()))
        yield opened


def test_every_row_holds_what_its_encoder_says_alone(finished):
    config, _ = finished
    store = Store.open(config.store.path)
    records = store.rows()
    source = open_rows(config.data)
    for key, encoder in Extraction(config).encoders.items():
        for name, arrays in store.features().items():
            if name not in {spec.name for spec in encoder.specs()}:
                continue
            stored = store.read(name)
            for place, record in enumerate(records[:6]):
                item = getattr(record, encoder.consumes)
                if key == "vae":
                    item = decode(source.image_bytes(item))
                alone = encoder.encode([item], [name]).values[name]
                for array in arrays.arrays:
                    ours, its = stored[array][place], alone[array][0]
                    if arrays.arrays[array].dtype == "bfloat16":
                        ours, its = ((x.astype(np.uint32) << 16).view(np.float32) for x in (ours, its))
                    np.testing.assert_allclose(ours.astype(np.float64), its.astype(np.float64), rtol=1e-2, atol=1e-3)


def test_equal_prompts_and_pictures_are_encoded_once_in_the_whole_store(finished):
    config, _ = finished
    store = Store.open(config.store.path)
    records = store.rows()
    assert store.n_partitions == 3
    wanted = {
        "llm.llm.l01.mean": len({record.simple for record in records}),
        "text.pipe.simple": len({record.simple for record in records}),
        "text.pipe.complex": len({record.complex for record in records}),
        "vae.pipe.32": len({record.image for record in records}),
    }
    copies = {}
    for name, distinct in wanted.items():
        stats = [receipt.stats for receipt in store.receipts(name) if receipt is not None]
        assert len(stats) == store.n_partitions
        assert sum(each["encoded"] for each in stats) == distinct < len(records)
        if copied := sum(each["copied"] for each in stats):
            copies[name] = copied
    assert copies == {"llm.llm.l01.mean": 4, "text.pipe.simple": 4}


def test_the_report_names_every_row_left_out(finished):
    config, _ = finished
    lines = (config.run_dir / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert "absent.png" in json.loads(lines[0])["reason"]


def test_counts_of_a_run(finished):
    config, done = finished
    assert [part.encoder for part in done] == ["llm"] * 2 + ["text.simple"] * 2 + ["text.complex"] * 2 + ["vae"] * 2
    assert sum(part.rows for part in done if part.encoder == "vae") == 10
    stored = sum(store_bytes.bytes_on_disk for store_bytes in Store.open(config.store.path).describe().features)
    assert sum(part.bytes for part in done) == stored
    assert sum(part.tokens for part in done if part.encoder == "llm") > 0


def test_a_second_run_computes_nothing_and_changes_nothing(config, finished, caplog):
    extract(config)
    before = store_files(config.store.path)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="sur"):
        assert all(not part.partitions for part in extract(config))
    assert store_files(config.store.path) == before == store_files(finished[0].store.path)
    assert "feature vae.pipe.32: 3 of 3 partitions already done" in caplog.text
    assert "computed" not in caplog.text


def test_a_run_that_breaks_anywhere_goes_on_where_it_was(config, finished, monkeypatch):
    real, calls = Store.publish_partition, []

    def breaks_at_times(self, *args, **kwargs):
        calls.append(args[0])
        if len(calls) % 3 == 0:
            raise ConnectionError("the machine went away")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Store, "publish_partition", breaks_at_times)
    for _ in range(20):
        try:
            extract(config)
        except ConnectionError:
            continue
        break
    failures = len(calls) // 3
    features = len(Store.open(config.store.path).features())
    assert failures > 2
    assert len(calls) - failures == features * 3
    assert store_files(config.store.path) == store_files(finished[0].store.path)


def test_a_partition_is_encoded_while_the_one_before_is_written(config, prepared, finished, monkeypatch):
    begun, second = [], threading.Event()
    encode, publish = extraction.encode_rows, Store.publish_partition

    def encoding(*arguments):
        begun.append(arguments)
        if len(begun) == 2:
            second.set()
        return encode(*arguments)

    def waiting(store, *arguments):
        assert second.wait(60), "nothing was encoded during the first write"
        return publish(store, *arguments)

    monkeypatch.setattr(extraction, "encode_rows", encoding)
    monkeypatch.setattr(Store, "publish_partition", waiting)
    done = prepared.encode("text.simple", [0, 1, 2])
    assert done.partitions == (0, 1, 2)
    monkeypatch.undo()
    extract(config)
    assert store_files(config.store.path) == store_files(finished[0].store.path)


def test_packed_token_states_take_no_more_than_planned_and_far_less_than_raw(tmp_path, models, rows):
    config = tiny_config(tmp_path, models, rows, "llm.pooling=tokens", "llm.max_tokens=64", "llm.layers=[1]")
    (planned,) = [feature for feature in plan_extraction(config).features if feature.kind == "llm"]
    extract(config)
    (made,) = [f for f in Store.open(config.store.path).describe().features if f.name == planned.name]
    raw = planned.bytes_per_row * planned.rows_to_write
    assert made.arrays["states"].codec == "zstd"
    assert raw / 20 < made.bytes_on_disk <= planned.bytes_to_write < raw / 2


def test_a_layer_that_another_process_computes_is_waited_for_while_the_own_one_is_being_written(
    config, prepared, monkeypatch
):
    own, others = prepared.encoder("llm").shapes()
    publish, store = Store.publish_partition, Store.open(config.store.path, writable=True)
    last = store.n_partitions - 1

    def slow(self, *arguments):
        time.sleep(0.5)
        return publish(self, *arguments)

    monkeypatch.setattr(Store, "publish_partition", slow)
    pending = prepared.pending("llm")
    with store.claim(others, last):
        at_work = threading.Thread(target=prepared.encode, args=("llm", pending))
        at_work.start()
        while at_work.is_alive() and (store.pending(own) or store.pending(others) != [last]):
            time.sleep(0.05)
        at_work.join(0.5)
        assert at_work.is_alive()
    at_work.join()
    assert store.pending(others) == []


def test_another_layer_becomes_a_feature_beside_the_old(config, tmp_path, models, rows):
    extract(config)
    before = store_files(config.store.path)
    extract(tiny_config(tmp_path, models, rows, "llm.layers=[2]"))
    after = store_files(config.store.path)
    assert {name: after[name] for name in before} == before
    assert set(Store.open(config.store.path).features()) >= {f"llm.llm.l0{n}.mean" for n in (1, 2, 3)}


def test_another_template_under_the_same_name_is_refused_by_field(config, prepared, tmp_path, models, rows):
    before = store_files(config.store.path)
    with pytest.raises(IdentityMismatch, match=r"template.*stored None.*wanted 'Say \{prompt\}'"):
        extract(tiny_config(tmp_path, models, rows, "llm.template='Say {prompt}'"))
    assert store_files(config.store.path) == before


def test_new_rows_are_computed_and_old_ones_left_alone(tmp_path, models):
    rows = save_rows(tmp_path / "rows", pictures=3)
    config = tiny_config(tmp_path, models, rows)
    extract(config)
    before = store_files(config.store.path)
    save_rows(rows, pictures=5)
    with Extraction(config) as opened:
        assert prepare(config, list(opened.encoders.values())).rows_new == 4
        store = Store.open(config.store.path)
        for key in opened.encoders:
            assert opened.pending(key) == [store.n_partitions - 1]
    extract(config)
    shards = {name: content for name, content in before.items() if "/c." in name}
    assert shards and shards.items() <= store_files(config.store.path).items()
    assert store.n_partitions == 3


def test_a_partition_that_another_writer_holds_is_waited_for(config, prepared):
    other = Store.open(config.store.path, writable=True)
    held, release = threading.Event(), threading.Event()

    def hold():
        with other.claim("text.pipe.simple", 0) as ours:
            assert ours
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    threading.Timer(0.3, release.set).start()
    done = prepared.encode("text.simple", [0, 1])
    holder.join()
    assert set(done.partitions) == {0, 1}
    assert Store.open(config.store.path).pending("text.pipe.simple") == [2]


def test_an_owner_that_is_not_done_is_computed_first(config, prepared):
    prepared.encode("text.simple", [2])
    assert Store.open(config.store.path).pending("text.pipe.simple") == [1]


def test_a_picture_edited_after_it_was_added_has_no_value(tmp_path, models):
    rows = save_rows(tmp_path / "rows", pictures=2, broken=False)
    config = tiny_config(tmp_path, models, rows)
    with prepared_extraction(config) as prepared:
        (rows / "0.png").write_bytes((rows / "1.png").read_bytes())
        (rows / "1.png").unlink()
        done = prepared.encode("vae", [0])
    missing = Store.open(config.store.path).missing("vae.pipe.32")
    assert done.missing == len(missing) == ROWS_PER_PARTITION
    assert "not the one that the row was added with" in missing[0]
    assert "1.png" in missing[2]


def test_rows_without_complex_prompt_have_no_complex_value(tmp_path, models):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "metadata.jsonl").write_text('{"text": "a cat", "prompt": "cat, 8k"}\n{"text": "a dog", "prompt": ""}\n')
    config = tiny_config(tmp_path, models, rows, "vae=null", "llm=null", "data.allow_unpaired=true")
    extract(config)
    store = Store.open(config.store.path)
    assert store.missing("text.pipe.simple") == {}
    assert store.missing("text.pipe.complex") == {1: "row has no complex prompt"}


def test_an_encoder_that_is_not_configured_is_named(config):
    with pytest.raises(ValueError, match="unknown encoder 'text.third'; configured"):
        Extraction(config).encoder("text.third")


def test_real_photographs_in_the_surd_layout_are_cached_and_the_bad_rows_reported(tmp_path, models, surd):
    config = tiny_config(tmp_path, models, surd)
    extract(config)
    store = Store.open(config.store.path)
    assert sorted(row.image for row in store.rows()) == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
    for name in store.features():
        assert store.pending(name) == [] and store.missing(name) == {}
    latents = store.read("vae.pipe.32")["mean"]
    assert np.isfinite(latents).all() and len(np.unique(latents.reshape(4, -1), axis=0)) == 4
    reported = (config.run_dir / "quarantine.jsonl").read_text()
    assert "../secret.png" in reported and "corrupt or truncated PNG" in reported
    assert store.verify() == []


def test_a_kill_while_the_store_is_made_is_mended_by_the_next_run(config, finished, monkeypatch):
    class Killed(BaseException):
        pass

    left = [4]
    publish = LocalStorage.publish

    def counted(storage, key, data):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        publish(storage, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "publish", counted)
        with pytest.raises(Killed):
            extract(config)
    assert config.store.path.exists() and not Store.exists(config.store.path)
    extract(config)
    assert store_files(config.store.path) == store_files(finished[0].store.path)


def test_edited_and_removed_rows_leave_the_data_set_and_cost_only_the_new_one(tmp_path, models):
    folder = save_rows(tmp_path / "rows", broken=False)
    config = tiny_config(tmp_path, models, folder)
    extract(config)
    shards = {name: data for name, data in store_files(config.store.path).items() if "/c." in name}
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    edited = json.loads(lines[1]) | {"text": "an edited sentence"}
    (folder / "metadata.jsonl").write_text("\n".join([lines[0], json.dumps(edited), *lines[4:]]) + "\n")
    done = extract(config)
    assert {part.rows for part in done} == {1}
    store = Store.open(config.store.path)
    assert store.n_rows == 11 and int(store.members("data").sum()) == 8
    assert shards.items() <= store_files(config.store.path).items()
    served = Loader(store, ["text.pipe.simple"], batch_size=1, selection=Selection("data", "all")).ids
    texts = {row.id: row.simple for row in store.rows()}
    assert sorted(texts[row.tobytes()] for row in served) == sorted(
        [json.loads(line)["text"] for line in [lines[0], *lines[4:]]] + ["an edited sentence"]
    )


def test_a_new_major_version_of_a_library_is_refused_by_name(config, monkeypatch):
    extract(config)
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.1" if name == "transformers" else real(name))
    with pytest.raises(IdentityMismatch, match=r"engine_version: stored '\d+', wanted '99'"):
        extract(config)


def test_two_data_sets_with_pictures_share_a_store_and_each_encodes_its_own(tmp_path, models):
    configs = []
    for name, pictures in (("first", 3), ("second", 4)):
        folder = save_rows(tmp_path / name, pictures=pictures, phrases=1, broken=False)
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        for line in lines:
            line["text"] = f"{name}: {line['text']}"
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        places = [f"data.slug={name}", f"store.path={tmp_path / 's.zarr'}", f"run_dir={tmp_path / ('run-' + name)}"]
        places.append("loss.alignment.form=tokens")
        configs.append(tiny_config(tmp_path, models, folder, *places))
    for config in configs:
        extract(config)
        larger = [c.model_copy(update={"vae": c.vae.model_copy(update={"resolution": 64})}) for c in configs]
    extract(larger[0])
    store = Store.open(tmp_path / "s.zarr")
    assert store.pending("vae.pipe.64") == [1] and store.missing("vae.pipe.64") == {}
    assert Loader(store, ["vae.pipe.64"], batch_size=1, selection=Selection("first", "all")).n_rows == 3
    extract(larger[1])
    store = Store.open(tmp_path / "s.zarr")
    assert store.pending("vae.pipe.64") == [] and store.missing("vae.pipe.64") == {}
    assert Loader(store, ["vae.pipe.64"], batch_size=1, selection=Selection("second", "all")).n_rows == 4


def test_a_removed_row_that_comes_back_gets_its_picture(tmp_path, models):
    folder = save_rows(tmp_path / "rows", pictures=4, phrases=1, broken=False)
    config = tiny_config(tmp_path, models, folder, "loss.alignment.form=tokens")
    extract(config)
    lines, picture = (folder / "metadata.jsonl").read_text(), (folder / "2.png").read_bytes()
    (folder / "2.png").unlink()
    (folder / "metadata.jsonl").write_text("".join(line + "\n" for line in lines.splitlines() if "2.png" not in line))
    larger = config.model_copy(update={"vae": config.vae.model_copy(update={"resolution": 64})})
    extract(larger)
    assert "outside its data set" in Store.open(config.store.path).missing("vae.pipe.64")[2]
    (folder / "2.png").write_bytes(picture)
    (folder / "metadata.jsonl").write_text(lines)
    extract(larger)
    assert Store.open(config.store.path).missing("vae.pipe.64") == {}


def larger(config, resolution=64):
    """The configuration with latents of another size, which are a feature of their own."""
    return config.model_copy(update={"vae": config.vae.model_copy(update={"resolution": resolution})})


def without_readout(tmp_path, models, folder):
    return tiny_config(tmp_path, models, folder, "loss.alignment.form=tokens")


def rename_pictures(folder, new_name):
    """Give every picture another name, in the rows as on the disk."""
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for name in {line["file_name"] for line in lines}:
        (folder / new_name(name)).parent.mkdir(exist_ok=True)
        (folder / name).rename(folder / new_name(name))
    moved = [json.dumps(line | {"file_name": new_name(line["file_name"])}) + "\n" for line in lines]
    (folder / "metadata.jsonl").write_text("".join(moved))


def test_pictures_that_moved_are_found_by_the_content_of_their_rows(tmp_path, models):
    folder = save_rows(tmp_path / "rows", pictures=5, phrases=2, broken=False)
    config = without_readout(tmp_path, models, folder)
    extract(config)
    before = store_files(config.store.path)
    rename_pictures(folder, lambda name: f"elsewhere/p-{name}")
    extract(larger(config))
    store = Store.open(config.store.path)
    assert store.missing("vae.pipe.64") == {}
    assert store.n_rows == 10 and set(store.places("data")) == set(range(12)) - {10, 11}
    assert {n: c for n, c in before.items() if n.startswith("rows/")}.items() <= store_files(config.store.path).items()
    source, records = open_rows(config.data), store.rows()
    alone = Extraction(larger(config)).encoders["vae"]
    for place, record in enumerate(records):
        picture = decode(source.image_bytes(store.places("data")[record.slot]))
        wanted = alone.encode([picture]).values["vae.pipe.64"]["mean"][0]
        np.testing.assert_allclose(store.read("vae.pipe.64")["mean"][place], wanted, rtol=1e-2, atol=1e-3)
    rename_pictures(folder, lambda name: name.removeprefix("elsewhere/p-"))
    extract(larger(config, 128))
    assert store.missing("vae.pipe.128") == {} and store.places("data") == {}
    assert store.verify() == []


def test_a_table_whose_rows_change_places_keeps_every_picture(tmp_path, models):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = save_rows(tmp_path / "pictures", pictures=7, phrases=1, broken=False)
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    cells = [{**line, "file_name": (rows / line["file_name"]).read_bytes()} for line in lines]
    folder = tmp_path / "table"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(cells), folder / "a.parquet")
    config = without_readout(tmp_path, models, folder)
    extract(config)
    small = Store.open(config.store.path).read("vae.pipe.32")["mean"]
    pq.write_table(pa.Table.from_pylist(cells[::-1]), folder / "b.parquet", row_group_size=2)
    (folder / "a.parquet").unlink()
    Store.open(config.store.path, writable=True).drop_feature("vae.pipe.32")
    extract(config)
    store = Store.open(config.store.path)
    assert store.n_rows == 7 and store.missing("vae.pipe.32") == {}
    np.testing.assert_array_equal(store.read("vae.pipe.32")["mean"], small)


def test_a_picture_that_could_not_be_read_is_tried_again(tmp_path, models, monkeypatch, caplog):
    folder = save_rows(tmp_path / "rows", pictures=6, phrases=1, broken=False)
    config = without_readout(tmp_path, models, folder)
    real = RowSource.image_bytes
    with prepared_extraction(config) as prepared:

        def unplugged(source, reference):
            if reference == "5.png":
                raise RowError("file_name", "cannot read '5.png' (Input/output error)", "check the disk")
            return real(source, reference)

        monkeypatch.setattr(RowSource, "image_bytes", unplugged)
        assert prepared.encode("vae", [0, 1]).missing == 1
        monkeypatch.undo()
    (reason,) = Store.open(config.store.path).missing("vae.pipe.32").values()
    assert "Input/output error" in reason
    with caplog.at_level(logging.INFO, logger="sur"):
        vae = [part for part in extract(config) if part.encoder == "vae"]
    assert [part.partitions for part in vae] == [(1,)]
    assert "1 rows whose pictures were not read before are tried again" in caplog.text
    assert Store.open(config.store.path).missing("vae.pipe.32") == {}


def test_a_row_whose_earlier_duplicate_lost_its_picture_is_encoded_itself(tmp_path, models):
    folder = save_rows(tmp_path / "rows", pictures=4, phrases=1, broken=False)
    config = without_readout(tmp_path, models, folder)
    with prepared_extraction(config) as prepared:
        (folder / "1.png").rename(folder / "away")
        prepared.encode("vae", [0])
    (folder / "away").rename(folder / "1.png")
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    lines[1]["text"] = (
        "the same picture, said otherwise"  # the old row leaves the data set, a new one shares its picture
    )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    extract(config)
    store = Store.open(config.store.path)
    assert list(store.missing("vae.pipe.32")) == [1] and not store.members("data")[1]
    assert store.members("data")[4] and np.abs(store.read("vae.pipe.32", np.array([4]))["mean"]).max() > 0


def test_two_data_sets_may_have_one_row_at_different_places(tmp_path, models):
    folder = save_rows(tmp_path / "first", pictures=3, phrases=1, broken=False)
    shutil.copytree(folder, tmp_path / "second")
    rename_pictures(tmp_path / "second", lambda name: f"copy-{name}")
    first = without_readout(tmp_path, models, folder)
    extract(first)
    shutil.rmtree(folder)
    data = first.data.model_copy(update={"path": tmp_path / "second", "slug": "second"})
    extract(larger(first.model_copy(update={"data": data})))
    store = Store.open(first.store.path)
    assert store.n_rows == 3 and store.missing("vae.pipe.64") == {}
    assert store.places("data") == {} and store.places("second") == {n: f"copy-{n}.png" for n in range(3)}
    assert describe_row(store, 1).image == "copy-1.png"
    compact(store, target := Store.create(tmp_path / "compact.zarr", 4))
    assert [row.image for row in target.rows()] == [f"copy-{n}.png" for n in range(3)]
    assert target.places("data") == {n: f"{n}.png" for n in range(3)} and target.places("second") == {}


@pytest.mark.parametrize(
    ("reason", "passes"),
    [
        ("picture '1.png' is not the one that the row was added with: edited since, or of another data.path", True),
        ("picture 'a/b.png' was not read: file_name: cannot read 'a/b.png' (Stale file handle); check it", True),
        ("outside its data set: picture '2.png' was not read: gone", True),
        ("file_name: cannot read '5.png' (No such file or directory); check that the file exists", True),  # older
        ("row: b.parquet has no row 5 any more; extract again from the changed file", True),  # older
        ("row has no image", False),
        ("mean is nan at [0, 0, 1] in float16 (12 such values)", False),
        ("corrupt or truncated PNG image (OSError: cut); replace the file or remove the row", False),
    ],
)
def test_reasons_that_may_pass_are_told_from_final_ones(reason, passes):
    assert may_pass(reason, "file_name") is passes


def test_a_picture_that_no_decoder_takes_is_final(tmp_path, models):
    folder = save_rows(tmp_path / "rows", pictures=3, phrases=1, broken=False)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    config = tiny_config(tmp_path, models, folder, "loss.alignment.form=tokens", "data.check_images=header")
    extract(config)
    before = store_files(config.store.path)
    assert all(not part.partitions for part in extract(config))
    assert store_files(config.store.path) == before
    assert "corrupt or truncated PNG" in Store.open(config.store.path).missing("vae.pipe.32")[1]


def test_a_read_out_of_other_latents_is_refused_before_anything_is_encoded(config, monkeypatch):
    extract(config)
    before = store_files(config.store.path)
    monkeypatch.setattr(Extraction, "encode", lambda *arguments: pytest.fail("encoded"))
    with pytest.raises(IdentityMismatch, match=r"'readout\.pipe' was made differently"):
        extract(larger(config))
    assert store_files(config.store.path) == before


def test_a_read_out_without_rows_to_sample_is_refused_before_anything_is_encoded(tmp_path, models):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text('{"text": "a cat"}\n{"text": "a dog"}\n')
    config = tiny_config(tmp_path, models, folder, "data.allow_unpaired=true")
    with pytest.raises(ConfigError, match="no row of .* has both a picture and a complex prompt"):
        extract(config)
    assert not Store.exists(config.store.path)


def test_damaged_rows_are_restored_from_pictures_that_moved(tmp_path, models):
    folder = save_rows(tmp_path / "rows", pictures=3, phrases=1, broken=False)
    config = tiny_config(tmp_path, models, folder, "llm=null", "loss.alignment.form=tokens")
    extract(config)
    rename_pictures(folder, lambda name: f"moved/{name}")
    store = Store.open(config.store.path, writable=True)
    (config.store.path / "rows" / "image" / "c.0").write_bytes(b"damaged")
    records, _ = scan(open_rows(config.data), need_image=True)
    assert store.repair(store.verify(), records) == [] and store.verify() == []
    assert [row.image for row in store.rows()] == [f"moved/{n}.png" for n in range(3)]
    assert Loader(store, ["vae.pipe.32"], batch_size=1, selection=Selection("data", "all")).n_rows == 3
