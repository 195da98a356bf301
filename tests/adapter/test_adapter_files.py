"""Saved adapters that are damaged, or that a stranger made: one clear error, and nothing large is allocated for it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sur.adapter.adapter import Adapter
from sur.adapter.released.adapter import ReleasedAdapter
from sur.config.adapter import AdapterConfig, ReleasedAdapterConfig
from sur.models.fingerprint import weights_fingerprint
from sur.support.errors import DamagedFile, UserError


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    trained_on = {
        "text": {"pipeline": "StableDiffusionPipeline"},
        "features": {},
        "loss": {"alignment": {"weight": 1.0}},
    }
    return Adapter(AdapterConfig(dim=16), 0.75, trained_on).save_pretrained(tmp_path / "adapter")


def same(folder, other) -> bool:
    """Whether two adapters load alike."""
    one, two = Adapter.from_pretrained(folder), Adapter.from_pretrained(other)
    settings = [(adapter.config, adapter.weight, adapter.trained_on) for adapter in (one, two)]
    weights = two.state_dict()
    return settings[0] == settings[1] and all(torch.equal(v, weights[name]) for name, v in one.state_dict().items())


@pytest.mark.parametrize("name", ["adapter.safetensors", "config.json"])
def test_no_flipped_bit_changes_what_is_loaded(saved, tmp_path, name):
    random = np.random.default_rng(len(name))
    whole = (saved / name).read_bytes()
    good = tmp_path / "good"
    good.mkdir()
    for file in saved.iterdir():
        (good / file.name).write_bytes(file.read_bytes())
    refused = 0
    for place in random.choice(len(whole), 150, replace=False):
        content = bytearray(whole)
        content[place] ^= 1 << random.integers(8)
        (saved / name).write_bytes(content)
        try:
            assert same(saved, good), place  # white space between two keys, at most
        except UserError as error:
            assert str(saved) in str(error)
            refused += 1
    assert refused >= (150 if name.endswith("safetensors") else 100)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.98])
@pytest.mark.parametrize("name", ["adapter.safetensors", "config.json"])
def test_a_file_that_is_cut_is_one_error(saved, share, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedFile, match=name):
        Adapter.from_pretrained(saved)


def test_weights_of_another_adapter_are_not_taken_for_its_own(saved, tmp_path):
    torch.manual_seed(1)
    other = Adapter(AdapterConfig(dim=16)).save_pretrained(tmp_path / "other")
    (saved / "adapter.safetensors").write_bytes((other / "adapter.safetensors").read_bytes())
    with pytest.raises(DamagedFile, match="SHA-256 differs"):
        Adapter.from_pretrained(saved)


def test_an_adapter_without_checksums_loads_and_has_the_same_fingerprint(saved):
    before = weights_fingerprint(saved)
    content = json.loads((saved / "config.json").read_text())
    del content["sha256"], content["weights_sha256"]
    (saved / "config.json").write_text(json.dumps(content))
    assert Adapter.from_pretrained(saved).weight == 0.75
    assert weights_fingerprint(saved) == before


def test_settings_changed_by_hand_are_refused_until_their_seal_is_removed(saved):
    content = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**content, "weight": 0.5}))
    with pytest.raises(DamagedFile, match="or remove the key sha256 if the change is yours"):
        Adapter.from_pretrained(saved)
    del content["sha256"]
    (saved / "config.json").write_text(json.dumps({**content, "weight": 0.5}))
    assert Adapter.from_pretrained(saved).weight == 0.5


def hostile(**changes):
    return lambda content: {**content, **changes}


def settings(**changes):
    return lambda content: {**content, "adapter": {**content["adapter"], **changes}}


@pytest.mark.parametrize(
    "change",
    [
        hostile(weight="much"), hostile(weight=float("nan")), hostile(weight=float("inf")), hostile(weight=None),
        hostile(weight=True), hostile(variant=["corrected"]), hostile(variant="unheard-of"), hostile(variant=3),
        hostile(format_version="2"), hostile(format_version=[]), hostile(format_version=10**400), hostile(adapter=[]),
        hostile(adapter=None), hostile(trained_on=[]), hostile(trained_on={"text": "sd"}),
        hostile(trained_on={"text": {"t5_tokens": "all"}}), hostile(trained_on={"text": {"pipeline": 3}}),
        hostile(trained_on={"features": [1]}), hostile(weights_sha256=5), hostile(variant="released"),
        settings(layers=20_000), settings(layers=255), settings(layers=1), settings(dim=10**13), settings(dim=2**62),
        settings(dim=64), settings(dim=0), settings(heads=3), settings(heads=0), settings(mlp_ratio=float("inf")),
        settings(mlp_ratio=1e300), settings(mlp_ratio=1e-9), settings(dropout=7), settings(width=3), settings(dim="x"),
        lambda content: [content], lambda content: None, lambda content: {}, lambda content: "adapter",
        lambda content: {k: v for k, v in content.items() if k != "adapter"},
        lambda content: {k: v for k, v in content.items() if k != "trained_on"},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_settings_that_are_none_are_one_error(saved, change):
    content = json.loads((saved / "config.json").read_text())
    del content["sha256"]  # as a stranger would
    (saved / "config.json").write_text(json.dumps(change(content)))
    with pytest.raises(UserError, match="adapter"):
        Adapter.from_pretrained(saved)


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"[" * 100_000, b'{"weight": ' + b"9" * 5000 + b"}", b"\0" * 100, b"{"]
)
def test_settings_that_are_no_json_are_one_error(saved, text):
    (saved / "config.json").write_bytes(text)
    with pytest.raises(DamagedFile, match=r"config\.json is damaged"):
        Adapter.from_pretrained(saved)


def unsealed(saved, change) -> None:
    """Replace the weights by others, and forget the checksums."""
    content = json.loads((saved / "config.json").read_text())
    del content["sha256"], content["weights_sha256"]
    (saved / "config.json").write_text(json.dumps(content))
    tensors = load_file(saved / "adapter.safetensors")
    change(tensors)
    save_file(tensors, saved / "adapter.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["output.bias"].fill_(float("nan")), r"1 of \d+ tensors hold NaN or infinity \(first: output.bias"),
        (lambda t: t["query.weight"][3].fill_(float("-inf")), "NaN or infinity"),
        (lambda t: t.pop("query.weight"), "query.weight is missing"),
        (lambda t: t.update(extra=torch.zeros(2)), "extra is unknown"),
        (lambda t: t.update({"output.bias": torch.zeros(16, 1)}), r"output.bias has shape \(16, 1\), expected \(16,\)"),
        (lambda t: t.clear(), "is missing; .* and .* more"),
    ],
)
def test_weights_that_are_none_of_an_adapter_are_one_error(saved, change, message):
    unsealed(saved, change)
    with pytest.raises(DamagedFile, match=message):
        Adapter.from_pretrained(saved)


def test_weights_in_half_precision_load_as_float32(saved):
    unsealed(saved, lambda t: t.update({name: value.bfloat16() for name, value in t.items()}))
    assert {value.dtype for value in Adapter.from_pretrained(saved).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors", (2**60).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_weights_that_are_no_safetensors_are_one_error(saved, content):
    unsealed(saved, lambda t: None)
    (saved / "adapter.safetensors").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"adapter\.safetensors is damaged: it is no safetensors file"):
        Adapter.from_pretrained(saved)


def test_a_folder_without_weights_is_one_error(saved):
    (saved / "adapter.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no adapter\.safetensors"):
        Adapter.from_pretrained(saved)
    (saved / "adapter.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no adapter\.safetensors"):
        Adapter.from_pretrained(saved)


LOAD = """
import resource, sys
import torch
from sur.adapter.adapter import Adapter
from sur.support.errors import UserError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Adapter.from_pretrained(sys.argv[1])
except UserError as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    "change", [settings(layers=200), settings(dim=40_000), settings(mlp_ratio=1e8), settings(layers=20_000)]
)
def test_large_settings_take_no_memory_before_the_weights_are_looked_at(saved, change):
    content = json.loads((saved / "config.json").read_text())
    del content["sha256"]
    (saved / "config.json").write_text(json.dumps(change(content)))
    done = subprocess.run([sys.executable, "-c", LOAD, str(saved)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200  # MiB; dim 40,000 has 6 GB a matrix


def test_a_released_adapter_is_checked_in_the_same_way(tmp_path):
    folder = ReleasedAdapter(ReleasedAdapterConfig(dim=16)).save_pretrained(tmp_path / "adapter")
    assert isinstance(Adapter.from_pretrained(folder), ReleasedAdapter)
    content = bytearray((folder / "adapter.safetensors").read_bytes())
    content[-3] ^= 16
    (folder / "adapter.safetensors").write_bytes(content)
    with pytest.raises(DamagedFile, match="SHA-256 differs"):
        Adapter.from_pretrained(folder)
