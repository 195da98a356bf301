"""sur.features.outcome: what is lost while encoding reaches the person, in the summary and in the quarantine file."""

import json
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file
from tiny_run import save_config_file, save_models, save_rows, store_files, tiny_config

from sur.cache import Store
from sur.data import read_quarantine
from sur.features.extraction import extract
from sur.features.outcome import outcomes
from sur.features.prepare import plan_extraction
from sur.support.errors import NothingEncoded


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory, models):
    """The same models, with a VAE whose latents are too large for float16."""
    folder = shutil.copytree(models, tmp_path_factory.mktemp("overflow") / "models")
    (file,) = (folder / "pipe" / "vae").glob("*.safetensors")
    weights = load_file(file)
    weights["quant_conv.weight"] *= 1e7
    weights["quant_conv.bias"] += 1e6
    save_file(weights, file, {"format": "pt"})
    return folder


def quarantined(config):
    return read_quarantine(config.run_dir / "quarantine.jsonl")


def test_a_feature_without_any_value_is_a_failure_that_keeps_the_others(tmp_path, overflowing, caplog):
    rows = save_rows(tmp_path / "rows", pictures=3, phrases=2)
    config = tiny_config(tmp_path, overflowing, rows)
    with pytest.raises(NothingEncoded) as caught:
        extract(config)
    message = str(caught.value)
    assert "feature vae.pipe.32: all 6 rows are without a value (the first: " in message and "\n" not in message
    assert " in float16 (" in message and "vae.store_dtype=float32" in message and "quarantine.jsonl" in message
    assert "sur drop STORE vae.pipe.32" in message
    store = Store.open(config.store.path)
    for name in ("llm.llm.l01.mean", "text.pipe.simple", "text.pipe.complex", "vae.pipe.32"):
        assert store.pending(name) == [] and bool(store.missing(name)) == (name == "vae.pipe.32")
    first, *lost = quarantined(config)
    assert "absent.png" in first.reason
    assert [(row.location, row.position) for row in lost] == [(f"metadata.jsonl:{n + 1}", n) for n in range(6)]
    assert {row.field for row in lost} == {"vae.pipe.32"} and all("in float16" in row.reason for row in lost)
    assert "vae: partition 0: 4 rows got no value; the first: " in caplog.text
    before = store_files(config.store.path)
    with pytest.raises(NothingEncoded):  # the receipts tell, whichever run computed them
        extract(config)
    assert store_files(config.store.path) == before and len(quarantined(config)) == 7


def test_the_remedy_in_the_message_is_one(tmp_path, overflowing):
    rows = save_rows(tmp_path / "rows", pictures=3, phrases=1, broken=False)
    config = tiny_config(tmp_path, overflowing, rows, "vae.store_dtype=float32", "loss.alignment.form=tokens")
    extract(config)
    assert Store.open(config.store.path).missing("vae.pipe.32") == {}


def test_one_lost_row_is_counted_and_its_place_told_while_the_others_go_on(tmp_path, models):
    rows = save_rows(tmp_path / "rows", pictures=5, phrases=1, broken=False)
    whole = (rows / "3.png").read_bytes()
    (rows / "3.png").write_bytes(whole[: len(whole) // 3])
    config = tiny_config(tmp_path, models, rows, "data.check_images=header", "loss.alignment.form=tokens")
    extract(config)
    (row,) = quarantined(config)
    assert (row.location, row.position, row.field) == ("metadata.jsonl:4", 3, "vae.pipe.32")
    assert "corrupt or truncated PNG" in row.reason
    *_, vae = outcomes(Store.open(config.store.path), "data", ["text.pipe.simple", "vae.pipe.32"])
    assert str(vae).startswith("vae.pipe.32: 4 of 5 rows encoded, 1 without a value (the first: corrupt or truncated")


def test_prompts_that_were_cut_are_counted_over_all_runs(tmp_path, models):
    rows = save_rows(tmp_path / "rows", pictures=6, phrases=1, broken=False)
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["text"] = f"{number} cats" + " and a dog" * (40 if number in (1, 2, 5) else 0)
    text = [json.dumps(line) + "\n" for line in lines]
    config = tiny_config(tmp_path, models, rows, "vae=null", "llm.max_tokens=16")
    for end in (2, 6):
        (rows / "metadata.jsonl").write_text("".join(text[:end]))
        extract(config)
    llm, simple, complex_ = outcomes(
        Store.open(config.store.path), "data", ["llm.llm.l03.mean", "text.pipe.simple", "text.pipe.complex"]
    )
    assert (llm.prompts, llm.cut) == (simple.prompts, simple.cut) == (6, 3) and complex_.cut == 0
    assert str(llm) == "llm.llm.l03.mean: 6 of 6 rows encoded, 3 of 6 prompts cut (50%)"


def test_rows_that_lack_by_nature_what_an_encoder_reads_are_not_lost(tmp_path, models):
    rows = save_rows(tmp_path / "rows", pictures=2, phrases=1, broken=False)
    with open(rows / "metadata.jsonl", "a") as file:
        file.write('{"text": "a cat alone"}\n')
    config = tiny_config(tmp_path, models, rows, "llm=null", "data.allow_unpaired=true", "loss.alignment.form=tokens")
    extract(config)
    made = outcomes(Store.open(config.store.path), "data", ["text.pipe.simple", "text.pipe.complex", "vae.pipe.32"])
    assert [(outcome.rows, dict(outcome.lost)) for outcome in made] == [(3, {}), (2, {}), (2, {})]
    assert quarantined(config) == []


def test_a_source_without_any_usable_row_is_refused_and_the_data_set_stays(tmp_path, models):
    rows = save_rows(tmp_path / "rows", pictures=3, phrases=1, broken=False)
    config = tiny_config(tmp_path, models, rows, "llm=null", "loss.alignment.form=tokens")
    extract(config)
    before = store_files(config.store.path)
    for picture in rows.glob("*.png"):
        picture.unlink()
    with pytest.raises(
        NothingEncoded, match=r"all 3 rows were left out; the first, metadata.jsonl:1, because of file_"
    ):
        extract(config)
    assert store_files(config.store.path) == before
    assert [row.position for row in quarantined(config)] == [0, 1, 2]
    with pytest.raises(NothingEncoded):
        plan_extraction(config).require_rows()
    (rows / "metadata.jsonl").write_text("")
    with pytest.raises(NothingEncoded, match="data.path holds no row at all"):
        extract(config)
    assert store_files(config.store.path) == before


@pytest.mark.slow
def test_the_command_tells_what_was_encoded_lost_and_cut_and_where_to_look(tmp_path, models):
    rows = save_rows(tmp_path / "rows", pictures=3, phrases=1)
    whole = (rows / "2.png").read_bytes()
    (rows / "2.png").write_bytes(whole[: len(whole) // 3])
    path = save_config_file(tmp_path, models, rows)
    settings = ["data.check_images=header", "loss.alignment.form=tokens", "llm.max_tokens=4"]
    command = [sys.executable, "-c", "from sur.cli.app import main; main()", "extract", str(path), *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, *features, where = done.stdout.splitlines()
    assert first.startswith("3 rows, 1 quarantined, 4 partitions computed")
    assert features[0] == "  llm.llm.l01.mean: 3 of 3 rows encoded, 3 of 3 prompts cut (100%)"
    assert features[-1].startswith("  vae.pipe.32: 2 of 3 rows encoded, 1 without a value (the first: corrupt or trunc")
    assert where.endswith(str(tmp_path / "run" / "quarantine.jsonl"))
    assert [row.field for row in read_quarantine(tmp_path / "run" / "quarantine.jsonl")] == ["file_name", "vae.pipe.32"]
