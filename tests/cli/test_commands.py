"""The `sur` command: every verb's output, exit codes, and errors without tracebacks."""

import json
import shutil
import subprocess
import sys

import pytest
from tiny_run import save_config_file, save_models, save_rows
from typer.testing import CliRunner

from sur.cache import RowRecord, Store
from sur.cli.app import app, main
from sur.config.load import save_config
from sur.config.run import load_config
from sur.features.extraction import extract

VERBS = ("plan", "extract", "train", "pipeline", "sweep", "generate", "evaluate", "inspect", "verify", "drop", "demo")
VERBS += ("convert", "publish", "build")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Path of a config whose store is complete."""
    folder = tmp_path_factory.mktemp("cli")
    path = save_config_file(folder, save_models(folder / "models"), save_rows(folder / "rows"))
    extract(load_config(path))
    return path


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(monkeypatch, capsys, *arguments):
    """Exit code and stderr of the command as a shell would see them."""
    monkeypatch.setattr(sys, "argv", ["sur", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    shown = invoke(verb, "--help")
    assert shown.exit_code == 0
    assert verb in shown.output


def test_help_names_every_verb():
    shown = invoke("--help").output
    assert all(verb in shown for verb in VERBS)


def test_version():
    assert invoke("--version").output.startswith("0.")


def test_plan_prints_rows_tokens_bytes_and_space(run):
    shown = invoke("plan", run, "llm.layers=[2]")
    assert shown.exit_code == 0, shown.output
    assert "10 valid rows (0 new, 10 in the store before), 1 quarantined" in shown.output
    assert "absent.png" in shown.output
    assert "llm.llm.l02.mean" in shown.output
    assert "0 of 3" in shown.output
    assert "3 of 3" in shown.output
    assert "free" in shown.output


def test_plan_refuses_what_cannot_fit(run, monkeypatch, capsys):
    monkeypatch.setattr("sur.features.prepare.free_bytes", lambda path: 10)
    code, message = fails(monkeypatch, capsys, "plan", run, "llm.layers=[2]")
    assert code == 2
    assert "only 10 B are free" in message
    assert "Traceback" not in message


def test_inspect_has_one_line_for_each_feature(run):
    shown = invoke("inspect", run)
    assert shown.exit_code == 0, shown.output
    names = Store.open(load_config(run).store.path).describe().features
    lines = {line.split()[0]: line for line in shown.output.splitlines() if line}
    assert {feature.name for feature in names} < set(lines)
    assert len(shown.output.splitlines()) == len(names) + 4  # the store, its data set, the heads, the read-out
    assert "layer 3" in lines["llm.llm.l03.mean"] and "bfloat16[48]" in lines["llm.llm.l03.mean"]
    assert lines["vae.pipe.32"].split()[1] == "10"
    assert "arrays" in lines["readout.pipe"]


def test_inspect_of_a_store_imports_no_model_library(run):
    program = "import sys; from sur.cli.app import app; app(standalone_mode=False); print(sorted(sys.modules))"
    command = [sys.executable, "-c", program, "inspect", str(load_config(run).store.path)]
    imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    assert "'sur.cache.store'" in imported
    assert [name for name in ("torch", "prefect", "diffusers", "transformers") if f"'{name}'" in imported] == []


def test_inspect_shows_everything_when_asked(run):
    shown = invoke("inspect", run, "--long", "--rows", 2)
    assert shown.exit_code == 0, shown.output
    for text in ("10 rows in 3 partitions", "vae.pipe.32", "3 of 3", "bfloat16[48]", "pooling", "cats, 8k", "0.png"):
        assert text in shown.output
    assert "1.png" not in shown.output


def test_verify_is_content_with_a_whole_store_and_names_damage(run, tmp_path):
    import shutil

    store = tmp_path / "store.zarr"
    shutil.copytree(load_config(run).store.path, store)
    assert invoke("verify", store).exit_code == 0
    shard = sorted((store / "features" / "vae.pipe.32" / "mean").glob("c*"))[1]
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    shown = invoke("verify", store)
    assert shown.exit_code == 1
    assert "vae.pipe.32 partition 1" in shown.output
    assert "1 fault; `sur verify --repair`" in shown.output


def test_damage_is_repaired_by_the_command_that_verify_names(run, tmp_path):
    config = load_config(run)
    store = Store.open(config.store.path)
    shard = sorted((config.store.path / "features" / "text.pipe.simple" / "states").glob("c*"))[0]
    before = shard.read_bytes()
    shard.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    shown = invoke("verify", run, "--repair")
    assert shown.exit_code == 0
    assert "1 fault; 1 mended or forgotten; now run `sur extract`" in shown.output
    assert Store.open(config.store.path).pending("text.pipe.simple") == [0]
    extract(config)
    assert shard.read_bytes() == before
    assert store.verify() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "{run}", "llm.layres=[2]"], "did you mean 'llm.layers'?"),
        (["plan", "{run}", "llm.model=/no/such/model"], "no model at /no/such/model"),
        (["plan", "{run}", "data.path=/no/such/rows"], "/no/such/rows"),
        (["plan", "nowhere.yaml"], "no such config file: nowhere.yaml"),
        (["inspect", "{folder}"], "holds no feature store"),
        (["verify", "{folder}"], "holds no feature store"),
        (["train", "{run}", "store.path=/no/such/store"], "/no/such/store does not exist"),
        (["sweep", "{run}", "store.path=/no/such/store", "--seeds", "0,1"], "/no/such/store does not exist"),
        (["publish", "{folder}", "{folder}/new"], "is no run: it has no config.yaml"),
    ],
)
def test_user_errors_are_one_message_and_exit_code_2(run, monkeypatch, capsys, arguments, message):
    code, error = fails(monkeypatch, capsys, *(text.format(run=run, folder=run.parent / "rows") for text in arguments))
    assert code == 2
    lines = [line for line in error.splitlines() if " | INFO " not in line]
    assert lines[0].startswith("error: ")
    assert message in error
    assert "Traceback" not in error and "starting Prefect" not in error


def test_a_fault_of_the_program_is_not_dressed_up(run, monkeypatch, capsys):
    def broken(config):
        raise KeyError("bug")

    monkeypatch.setattr("sur.features.prepare.plan_extraction", broken)
    monkeypatch.setattr(sys, "argv", ["sur", "plan", str(run)])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 70
    assert "Traceback (most recent call last):" in lines and lines[-1] == "KeyError: 'bug'"


def test_quarantine_report_is_where_the_readme_says(run):
    report = load_config(run).run_dir / "quarantine.jsonl"
    assert [json.loads(line)["location"] for line in report.read_text().splitlines()] == ["metadata.jsonl:11"]


def test_inspect_shows_prompts_with_brackets_as_they_are(tmp_path):
    store = Store.create(tmp_path / "s.zarr")
    store.add_rows([RowRecord(b"0123456789abcdef", "a cat, [masterpiece]", "[/INST]")])
    shown = invoke("inspect", store.path, "--long")
    assert shown.exit_code == 0 and "a cat, [masterpiece]" in shown.output and "[/INST]" in shown.output


def test_drop_removes_a_feature_and_leaves_the_others(run, tmp_path):
    shutil.copytree(load_config(run).store.path, tmp_path / "s.zarr")
    before = set(Store.open(tmp_path / "s.zarr").features())
    assert invoke("drop", tmp_path / "s.zarr", "vae.pipe.32").exit_code == 0
    store = Store.open(tmp_path / "s.zarr")
    assert before - set(store.features()) == {"vae.pipe.32"} and store.verify() == []


def test_rows_are_restored_when_the_folder_of_the_run_is_given(run):
    config = load_config(run)
    save_config(config)
    texts = next((config.store.path / "rows" / "simple").glob("c*"))
    before = texts.read_bytes()
    texts.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    assert "Beyond repair" in invoke("verify", config.store.path, "--repair").output
    shown = invoke("verify", config.run_dir, "--repair")
    assert shown.exit_code == 0, shown.output
    assert Store.open(config.store.path).verify() == []


def test_a_damaged_read_out_is_repaired_too(run):
    config = load_config(run)
    array = next((config.store.path / "assets" / "readout.pipe").glob("queries00/c*"))
    before = array.read_bytes()
    array.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert "readout.pipe" in invoke("verify", run, "--repair").output
    extract(config)
    assert array.read_bytes() == before and Store.open(config.store.path).verify() == []


def test_compact_leaves_behind_what_no_data_set_has(run, tmp_path):
    source = tmp_path / "old.zarr"
    shutil.copytree(load_config(run).store.path, source)
    store = Store.open(source, writable=True)
    kept = [row.id for row in store.rows()[1:]]
    store.set_members("data", kept)
    result = invoke("compact", source, tmp_path / "new.zarr")
    assert result.exit_code == 0 and "; 1 rows of" in result.output and "Set store.path to it" in result.output
    assert [row.id for row in Store.open(tmp_path / "new.zarr").rows()] == kept
    assert f"data set data: {len(kept)} rows" in invoke("inspect", tmp_path / "new.zarr").output
    assert invoke("verify", tmp_path / "new.zarr").exit_code == 0


def test_damaged_rows_are_restored_from_the_data_of_a_config(run, tmp_path):
    config = load_config(run)
    shard = config.store.path / "rows" / "simple" / "c.0"
    good = shard.read_bytes()
    shard.write_bytes(good[:40] + b"~" + good[41:])
    shown = invoke("verify", config.store.path, "--repair")
    assert shown.exit_code == 1 and "Rows are restored from their source" in shown.output
    assert "1 mended or forgotten" in invoke("verify", run, "--repair").output
    assert shard.read_bytes() == good and invoke("verify", run).exit_code == 0


@pytest.mark.parametrize("partition", [0, -1])
def test_a_lost_receipt_of_rows_ends_every_command_that_would_pass_rows_over(run, tmp_path, partition):
    config = load_config(run)
    receipt = sorted((config.store.path / "receipts/rows").glob("*/zarr.json"))[partition]
    receipt.unlink()
    for arguments in (
        ["inspect", run],
        ["lint", config.store.path],
        ["compact", run, tmp_path / "new.zarr"],
        ["train", run],
    ):
        result = invoke(*arguments)
        assert result.exit_code != 0 and f"{receipt.parent.name}/zarr.json is gone" in str(result.exception), arguments
    assert invoke("verify", run).exit_code == 1
    assert "1 mended" in invoke("verify", run, "--repair").output
    assert receipt.exists() and invoke("verify", run).exit_code == 0


@pytest.mark.parametrize("target", ["link", "old.zarr/inside/new.zarr", "old.zarr/../old.zarr"])
def test_compact_makes_nothing_in_its_own_place(run, tmp_path, target):
    source = tmp_path / "old.zarr"
    shutil.copytree(load_config(run).store.path, source)
    (tmp_path / "link").symlink_to(source)
    before = sorted(source.rglob("*"))
    result = invoke("compact", source, tmp_path / target)
    assert "cannot be compacted into itself" in str(result.exception) and sorted(source.rglob("*")) == before


def test_drop_forgets_a_data_set_too(run, tmp_path):
    shutil.copytree(load_config(run).store.path, tmp_path / "s.zarr")
    assert "data dropped" in invoke("drop", tmp_path / "s.zarr", "data").output
    store = Store.open(tmp_path / "s.zarr")
    assert store.datasets() == [] and store.n_rows > 0 and store.verify() == []
