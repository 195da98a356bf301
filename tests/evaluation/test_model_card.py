"""What is handed on: a folder that loads, a card of what was measured, licences asked for, only these files pushed."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from PIL import Image
from tiny_training import tiny_store
from typer.testing import CliRunner

from sur.adapter.adapter import Adapter
from sur.adapter.hub import adapter_folder, push
from sur.cli.app import app
from sur.config.load import save_config
from sur.config.run_folder import RunFolder
from sur.evaluation.report.model_card import publish_adapter
from sur.evaluation.results import Comparison, Evaluation, ScoreRow
from sur.evaluation.statistics import Interval
from sur.models.fingerprint import weights_fingerprint
from sur.support.errors import ConfigError
from sur.training.fit import fit

LICENCES = {"adapter": "apache-2.0", "data": "cc-by-4.0", "base model": "openrail", "LLM": "mit"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny training with a result of an evaluation and a grid."""
    config = tiny_store(tmp_path_factory.mktemp("run"), "train.steps=2", "loss.distillation.form=pooled")
    save_config(config)
    fit(config)

    def interval(value: float) -> Interval:
        return Interval(value=value, low=value - 0.1, high=value + 0.1)

    key = {"set": "everyday", "group": "all", "scorer": "clip"}
    scored = (("narrative", 0.25), ("adapter", 0.5), ("complex", 0.75))
    rows = [ScoreRow(**key, condition=c, prompts=9, pictures=9, score=interval(v)) for c, v in scored]
    comparison = Comparison(**key, difference=interval(0.25), wins=6, losses=2, ties=1, p=0.0421)
    empty = {"digest": "", "adapter": "", "pictures": "", "sets": [], "scorers": [], "gaps": [], "weight": None}
    fingerprint = weights_fingerprint(config.run_dir / "adapter")
    result = Evaluation(rows=rows, comparisons=[comparison], adapter_fingerprint=fingerprint, **empty)
    RunFolder(config.run_dir).evaluation.write_text(result.model_dump_json())
    Image.new("RGB", (8, 8)).save(RunFolder(config.run_dir).grid)
    return config


def test_the_folder_holds_the_adapter_and_a_card_of_what_was_measured(run, tmp_path):
    folder = publish_adapter(run.run_dir, tmp_path / "out", LICENCES, "me/mine")
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "adapter.safetensors", "config.json", "before-after.png",
    }  # fmt: skip
    ours, theirs = (Adapter.from_pretrained(each).state_dict() for each in (run.run_dir / "adapter", folder))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "apache-2.0" and "base_model" not in header  # a folder of this machine
    assert str(run.base_model) not in card
    assert "| everyday (9) | clip | 0.250 [0.150, 0.350] | 0.500 [0.400, 0.600] | 0.750 [0.650, 0.850] |" in card
    assert "6 / 2 (0.0421)" in card
    assert 'from_pretrained("me/mine")' in card
    assert "![pictures" in card and "before-after.png" in card
    assert "| LLM | mit |" in card and "| data | cc-by-4.0 |" in card
    identities = json.loads((folder / "config.json").read_text())["trained_on"]["features"]
    assert len(identities) == 4  # simple, complex, LLM, latents
    assert all(name in card and identity["model"] in card for name, identity in identities.items())
    assert "form: pooled" in card


def test_a_run_without_an_evaluation_says_so(run, tmp_path):
    kept = RunFolder(run.run_dir).evaluation.read_text()
    RunFolder(run.run_dir).evaluation.unlink()
    try:
        card = (publish_adapter(run.run_dir, tmp_path / "out", LICENCES) / "README.md").read_text()
    finally:
        RunFolder(run.run_dir).evaluation.write_text(kept)
    assert "Nothing was measured" in card and "YOUR-NAME/YOUR-ADAPTER" in card


def test_scores_of_other_weights_are_not_published(run, tmp_path):
    path = RunFolder(run.run_dir).evaluation
    kept = path.read_text()
    path.write_text(kept.replace(weights_fingerprint(run.run_dir / "adapter"), "another"))
    try:
        with pytest.raises(ConfigError, match="is about another adapter"):
            publish_adapter(run.run_dir, tmp_path / "out", LICENCES)
        path.write_text('{"digest": "of an older version"}')
        with pytest.raises(ConfigError, match="another version .*`sur evaluate`"):
            publish_adapter(run.run_dir, tmp_path / "out", LICENCES)
    finally:
        path.write_text(kept)
    assert not (tmp_path / "out").exists()


def test_a_hub_that_does_not_answer_is_said_and_the_folder_is_ready(run, tmp_path):
    folder = publish_adapter(run.run_dir, tmp_path / "out", LICENCES)
    with pytest.raises(ConfigError, match="hf upload nobody/nothing"):  # HF_HUB_OFFLINE is set
        push(folder, "nobody/nothing")
    assert Adapter.from_pretrained(folder)


def test_a_hub_that_refuses_the_connection_is_said_in_the_same_words(run, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    folder = publish_adapter(run.run_dir, tmp_path / "out", LICENCES)
    with pytest.raises(ConfigError, match=r"was not written \(ConnectError.*hf upload nobody/nothing"):
        push(folder, "nobody/nothing")


@pytest.mark.parametrize("missing", LICENCES)
def test_every_inputs_licence_is_asked_for(run, tmp_path, missing):
    with pytest.raises(ConfigError, match=f"give the licence of: {missing}"):
        publish_adapter(run.run_dir, tmp_path / "out", LICENCES | {missing: ""})
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        publish_adapter(run.run_dir, tmp_path, LICENCES)


def test_the_command(run, tmp_path):
    options = ["--license", "mit", "--data-license", "mit", "--base-license", "mit", "--llm-license", "mit"]
    done = CliRunner().invoke(app, ["publish", str(run.run_dir), str(tmp_path / "out"), *options])
    assert done.exit_code == 0, done.output
    assert f"published: {tmp_path / 'out'}" in done.output


def test_only_an_adapters_files_are_pushed(run, tmp_path, monkeypatch):
    folder = publish_adapter(run.run_dir, tmp_path / "out", LICENCES)
    (folder / "secret.env").write_text("HF_TOKEN=x")
    sent: dict = {}
    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda _self, name, **given: sent.update(given, name=name)
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda _self, **given: sent.update(given) or "there")
    assert push(folder, "me/mine") == "there"
    assert sent["name"] == sent["repo_id"] == "me/mine" and sent["private"] is True
    chosen = huggingface_hub.utils.filter_repo_objects(
        [file.name for file in folder.iterdir()], allow_patterns=sent["allow_patterns"]
    )
    assert "secret.env" not in set(chosen)
    (folder / "README.md").unlink()
    with pytest.raises(FileNotFoundError, match="sur publish"):
        push(folder, "me/mine")


def test_a_hub_id_is_looked_up_and_a_wrong_path_is_not(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="or a hub id"):
        adapter_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="or a hub id"):
        adapter_folder(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="the hub gave none"):
        adapter_folder("nobody/no-such-adapter")
    asked: dict = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **given: asked.update(given) or str(tmp_path)
    )
    assert adapter_folder("me/mine", "v1") == tmp_path
    assert asked["revision"] == "v1" and set(asked["allow_patterns"]) == {"config.json", "adapter.safetensors"}


def test_a_publishing_that_is_cut_short_leaves_nothing_that_the_next_one_refuses(run, tmp_path, monkeypatch):
    def cut(_source, target, **_options):
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("sur.evaluation.report.model_card.shutil.copyfile", cut)
        publish_adapter(run.run_dir, tmp_path / "out", LICENCES)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.partial").mkdir()  # of a publishing that was killed
    (tmp_path / ".out.partial" / "half").touch()
    (tmp_path / "out").mkdir()
    folder = publish_adapter(run.run_dir, tmp_path / "out", LICENCES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "half" not in {path.name for path in folder.iterdir()}
