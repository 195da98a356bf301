"""`sur init`: a commented file that loads, in place of none."""

import re

import pytest
from typer.testing import CliRunner

from sur.cli.app import app
from sur.config.run import load_config
from sur.support.errors import ConfigError


def sur(*arguments):
    return CliRunner().invoke(app, ["init", *arguments])


@pytest.mark.parametrize(
    ("template", "base_model"),
    [
        ("shapes", "package:sur/shapes/weights"),
        ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
    ],
)
def test_every_template_loads_and_has_comments(template, base_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = sur(template)
    assert (done.exit_code, done.output.splitlines()[0]) == (0, f"written: {template}.yaml")
    path = tmp_path / f"{template}.yaml"
    assert load_config(path).base_model == base_model
    for setting in ("base_model", "run_dir", "path", "layers", "pooling", "resolution"):
        assert re.search(rf"^ *{setting}: .* # .+$", path.read_text(), re.MULTILINE), setting


def test_sdxl_s_vae_computes_in_float32_at_its_own_size(tmp_path):
    sur("sdxl", str(tmp_path / "own.yaml"))
    vae = load_config(tmp_path / "own.yaml").vae
    assert vae is not None and (vae.compute_dtype, vae.resolution) == ("float32", 1024)


def test_a_file_is_named_and_its_folder_made(tmp_path):
    assert sur("sd15", str(tmp_path / "new" / "own.yaml")).exit_code == 0
    assert (tmp_path / "new" / "own.yaml").is_file()


def test_a_file_that_exists_is_kept(tmp_path):
    (tmp_path / "own.yaml").write_text("mine")
    done = sur("shapes", str(tmp_path / "own.yaml"))
    assert isinstance(done.exception, ConfigError) and "is not overwritten" in str(done.exception)
    assert (tmp_path / "own.yaml").read_text() == "mine"


def test_an_unknown_template_is_refused_with_the_known_ones():
    done = sur("flux")
    assert done.exit_code == 2
    assert all(name in done.output for name in ("shapes", "sd15", "sdxl"))
