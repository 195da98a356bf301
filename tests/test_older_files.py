"""Files that the code of November 2026 wrote (commit fd5672b, before the packages moved): they open, go on and load.

written_by/fd5672b.zip holds a tiny run: random models, rows, an extracted store, the checkpoint of step 3 of 6, the
adapter of step 6, and an adapter of the released variant.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sur.adapter.adapter import Adapter
from sur.adapter.generate import load_pipeline
from sur.cache import Store
from sur.config.run import load_config
from sur.features.extraction import extract
from sur.training.fit import fit

ARCHIVE = Path(__file__).parent / "written_by" / "fd5672b.zip"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run, in the working directory; returns its configuration."""
    zipfile.ZipFile(ARCHIVE).extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return load_config("run.yaml")


def test_an_older_store_is_whole_and_nothing_of_it_is_computed_anew(run):
    store = Store.open(run.store.path)
    assert store.verify() == []
    before = {path: path.read_bytes() for path in sorted(Path(run.store.path).rglob("*")) if path.is_file()}
    extract(run)
    assert {path: path.read_bytes() for path in sorted(Path(run.store.path).rglob("*")) if path.is_file()} == before
    assert store.n_rows == 12 and len(store.features()) == 5
    for name in store.features():
        assert all(np.isfinite(store.read_float32(name, np.arange(12), array)).all() for array in ("states", "mean")
                   if array in store.spec(name).arrays)  # fmt: skip


def test_an_older_run_s_resolved_settings_are_read(run):
    assert load_config("run/config.yaml") == run
    assert load_config("released/config.yaml").variant == "released"


def test_an_older_checkpoint_goes_on_to_the_end_that_the_older_code_reached(run):
    expected = load_file("run/adapter/adapter.safetensors")
    reached = []
    fit(run, lambda step: reached.append(step.step))
    assert reached == [4, 5, 6]
    trained = load_file("run/adapter/adapter.safetensors")
    assert trained.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(trained[name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("folder", "variant"), [("run/adapter", "corrected"), ("released/adapter", "released")])
def test_an_older_adapter_loads_and_changes_the_prompt_s_states(run, folder, variant):
    adapter = Adapter.from_pretrained(folder)
    assert adapter.variant == variant
    assert adapter.state_dict().keys() == load_file(Path(folder) / "adapter.safetensors").keys()
    pipe = load_pipeline("models/pipe")
    plain = pipe.encode_prompt("two cats", "cpu", 1, False)[0]
    adapter.attach(pipe)
    assert not torch.equal(pipe.encode_prompt("two cats", "cpu", 1, False)[0], plain)
    adapter.detach(pipe)
    assert torch.equal(pipe.encode_prompt("two cats", "cpu", 1, False)[0], plain)
