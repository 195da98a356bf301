"""`sur inspect` in each of its views, for people and as JSON."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sur.analysis.store.pictures import LatentPictures
from sur.analysis.store.statistics import feature_statistics
from sur.cache import Store
from sur.cli.app import app
from sur.config.load import save_config
from sur.support.errors import ConfigError, NotInStore

TEXT = "text.shapes.simple"


@pytest.fixture
def path(shapes_config):
    return shapes_config.store.path


def invoke(*arguments):
    return CliRunner().invoke(app, ["inspect", *(str(argument) for argument in arguments)])


def shown(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def plain(*arguments):
    return json.loads(shown(*arguments, "--json"))


def test_the_overview_is_json_too(path):
    found = plain(path)
    assert found["n_rows"] == 96 and found["datasets"] == {"data": 96}
    assert TEXT in [feature["name"] for feature in found["features"]]


def test_a_row_is_shown_with_prompts_norms_and_neighbours(path):
    row = Store.open(path).rows()[4]
    out = shown(path, "--row", 4, "--neighbours", 2)
    for text in (row.id.hex(), row.simple, row.complex, "nearest by vae.shapes.64", "token norms"):
        assert text in out
    found = plain(path, "--row", row.id.hex()[:8], "--neighbours", 3)
    assert found["slot"] == 4 and {len(near) for near in found["neighbours"].values()} == {3}


def test_a_rows_picture_is_written_and_said_to_be_decoded(path, tmp_path):
    target = tmp_path / "new" / "row.png"
    out = shown(path, "--row", 4, "--neighbours", 0, "--picture", target)
    assert f"{target}: decoded by the VAE in" in out
    np.testing.assert_array_equal(Image.open(target), LatentPictures(Store.open(path)).picture(4))


@pytest.fixture
def undone(path, tmp_path):
    """A store whose latents are not computed yet."""
    copy = tmp_path / "undone.zarr"
    shutil.copytree(path, copy)
    store = Store.open(copy, writable=True)
    for partition in range(store.n_partitions):
        store.discard("vae.shapes.64", partition)
    return copy


def test_a_row_without_a_picture_is_shown_all_the_same(undone, tmp_path):
    result = invoke(undone, "--row", 4, "--neighbours", 0, "--picture", tmp_path / "row.png")
    assert result.exit_code == 1 and not (tmp_path / "row.png").exists()
    assert "token norms" in result.stdout and "no picture: " in result.stdout


def test_what_is_not_computed_has_no_numbers(undone, path):
    assert "none; run `sur extract`" in shown(undone, "--feature", "vae.shapes.64")
    assert plain(undone, "--feature", "vae.shapes.64")["mean"] is None
    [latents] = [each for each in plain(undone, "--row", 4)["features"] if each["name"] == "vae.shapes.64"]
    assert latents["missing"] == "not extracted yet" and latents["norm"] is None
    assert "no row has a value in both" in shown(undone, "--feature", "vae.shapes.64", "--diff", path)
    rows = feature_statistics(Store.open(path), "vae.shapes.64").rows
    assert f"rows in the second only: {rows}" in shown(undone, "--feature", "vae.shapes.64", "--diff", path)
    compared = plain(undone, "--feature", "vae.shapes.64", "--diff", path)
    assert {each["mean_cosine"] for each in compared["arrays"]} == {None}


def test_a_run_folder_names_its_store(path, own_config):
    save_config(own_config)
    assert plain(own_config.run_dir)["path"] == str(own_config.store.path)
    shutil.copytree(own_config.run_dir, own_config.run_dir.parent / "backup")
    assert "is of the run folder" in str(invoke(own_config.run_dir.parent / "backup").exception)
    other = own_config.run_dir.parent / "data"
    other.mkdir()
    (other / "config.yaml").write_text("a: file of somebody else\n")
    assert "holds no feature store" in str(invoke(other).exception)


def test_a_features_statistics_are_shown(path):
    out = shown(path, "--feature", TEXT)
    found = feature_statistics(Store.open(path), TEXT)
    for text in ("effective rank", f"{found.mean:.5g}", "tokens a row", "0 NaN", f"{found.vectors:,} vectors"):
        assert text in out
    assert plain(path, "--feature", TEXT) == json.loads(json.dumps(found.to_json()))


def test_a_search_names_rows(path):
    row = Store.open(path).rows()[4]
    words = " ".join(reversed(row.simple.upper().split()[:6]))
    assert row.id.hex()[:8] in shown(path, "--search", words)
    found = plain(path, "--search", "a", "--limit", 2)
    assert found["found"] > 2 == len(found["rows"]) and len(found["rows"][0]["id"]) == 32
    assert plain(path, "--search", "zebra crossing") == {"found": 0, "rows": []}


def test_stores_and_features_are_compared(path, tmp_path):
    shutil.copytree(path, tmp_path / "copy.zarr")
    assert "no difference" in shown(path, "--diff", tmp_path / "copy.zarr")
    Store.open(tmp_path / "copy.zarr", writable=True).drop_feature(TEXT)
    out = shown(path, "--diff", tmp_path / "copy.zarr")
    assert f"features in the first only: {TEXT}" in out and "the stores differ" in out
    assert plain(path, "--diff", tmp_path / "copy.zarr")["features_only_a"] == [TEXT]
    other = shown(path, "--feature", TEXT, "--diff", "text.shapes.complex")
    assert "identity.consumes: simple and complex" in other and "mean cosine" in other
    assert plain(path, "--feature", "vae.shapes.64", "--diff", tmp_path / "copy.zarr")["same"] is True


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--row", "9999"), NotInStore, "slot 9999 holds no row"),
        (("--row", "1", "--search", "a"), ConfigError, "ask for one"),
        (("--picture", "x.png"), ConfigError, "name it with --row"),
        (("--row", "1", "--vae", "x"), ConfigError, "name it with --picture"),
        (("--feature", TEXT, "--limit", "3"), ConfigError, "name it with --search"),
        (("--search", "red", "--long"), ConfigError, "--long is for the overview"),
        (("--search", " "), ConfigError, "--search needs a word"),
        (("--rows", "5"), ConfigError, "name it with --long"),
        (("--feature", TEXT, "--diff", "/nowhere"), Exception, "holds no feature store"),
    ],
)
def test_what_cannot_be_shown_is_said(path, arguments, kind, message):
    result = invoke(path, *arguments)
    assert isinstance(result.exception, kind) and message in str(result.exception)


def test_looking_at_rows_and_features_imports_no_model_library(path):
    program = "import sys; from sur.cli.app import app; app(standalone_mode=False); print(sorted(sys.modules))"
    for view in (["--row", "3"], ["--feature", TEXT], ["--search", "red"], ["--feature", TEXT, "--diff", TEXT]):
        command = [sys.executable, "-c", program, "inspect", str(path), *view, "--json"]
        imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        assert [name for name in ("torch", "prefect", "diffusers", "transformers") if f"'{name}'" in imported] == []
