"""The configuration files that the package ships: found by name, never in place of a file of the user's own."""

from pathlib import Path

import pytest
from small_settings import CONFIGS

from sur.config.curation import load_build_config
from sur.config.example_files import config_file, example_file, example_names
from sur.config.run import load_config
from sur.features.encoders.build import build_encoders
from sur.support.errors import ConfigError

WEIGHTS = CONFIGS.parent / "sur" / "shapes" / "weights"
RUNS = ["sd15-llama13b-released", "sd15-qwen3-8b", "sdxl-qwen3-8b", "shapes"]


def test_every_file_of_configs_has_its_name():
    assert example_names() == sorted(file.stem for file in CONFIGS.glob("*.yaml"))
    assert {*RUNS, "build-images", "build-prompts"} == set(example_names())
    for name in example_names():
        assert example_file(name).read_bytes() == (CONFIGS / f"{name}.yaml").read_bytes()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_s_file_loads_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config(name) == load_config(CONFIGS / f"{name}.yaml")


def test_a_build_s_file_loads_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_build_config("build-images").run_dir == Path("runs/build-images")


def test_a_file_and_a_run_folder_of_the_user_s_own_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file("shapes") == example_file("shapes")
    (tmp_path / "shapes").mkdir()  # some folder is no configuration
    assert config_file("shapes") == example_file("shapes")
    (tmp_path / "shapes" / "config.yaml").write_text("run_dir: shapes\n")
    assert config_file("shapes") == Path("shapes")
    with pytest.raises(ConfigError, match="shapes is a folder, and a config file is wanted; that of its run is"):
        load_config("shapes")
    (tmp_path / "sdxl-qwen3-8b").write_text("run_dir: own\nbase_model: own/model\ndata: {path: rows}\n")
    assert load_config("sdxl-qwen3-8b").run_dir == Path("own")


def test_a_name_that_is_unknown_is_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such config file: sd16"):
        load_config("sd16")


def test_the_demo_s_stores_of_before_are_those_of_now():
    """Its model's folder was named relative to the checkout; the name is in no identity."""
    before, now = load_config("shapes", [f"base_model={WEIGHTS}"]), load_config("shapes")
    assert now.base_model == "package:sur/shapes/weights"
    old, new = (
        [spec for encoder in build_encoders(text=config.text, vae=config.vae) for spec in encoder.specs()]
        for config in (before, now)
    )
    assert len(new) == 3 and new == old
