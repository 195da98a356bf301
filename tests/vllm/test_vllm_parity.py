"""States from the real vLLM are those of transformers, and where they could not be it says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from vllm_parity import FAMILIES, prompts, save_family
from vllm_server import CHUNKED, configs, running, states_in

from sur.cache import bfloat16_to_float32
from sur.features.encoders import LLMEncoder
from sur.support.errors import EngineGone

LAYER_ERROR = 1e-5  # over all rows of a layer, float32
STEP = 2.0**-8  # between neighbouring bfloat16 numbers, relative, at least


@pytest.fixture(scope="module")
def items(smollm2):
    """Lengths from 1 to 500 tokens (more than one step of the engine computes), duplicates, unicode, no text."""
    return [p for p in prompts(AutoTokenizer.from_pretrained(smollm2))[:40] if len(p) < 4000]


def layer_errors(served, hf) -> dict[str, float]:
    assert served.bad == hf.bad
    errors = {}
    for name, arrays in hf.values.items():
        assert np.array_equal(served.values[name]["length"], arrays["length"])
        got, wanted = (torch.from_numpy(v["states"]).double() for v in (served.values[name], arrays))
        assert got.shape == wanted.shape
        errors[name] = float((got - wanted).norm() / wanted.norm())
    return errors


@pytest.mark.parametrize("pooling", ["mean", "last", "tokens"])
@pytest.mark.parametrize("template", [None, "chat"])
def test_states_are_those_of_transformers(smollm2, server, items, pooling, template):
    with_vllm, with_hf = configs(smollm2, server, pooling=pooling, template=template)
    served = LLMEncoder(with_vllm).encode(items)
    errors = layer_errors(served, LLMEncoder(with_hf).encode(items))
    assert max(errors.values()) < LAYER_ERROR, errors
    assert served.bad == {3: "the prompt has no text"}
    assert not states_in(server.exchange)


def test_prompts_that_are_cut_are_cut_alike(smollm2, server, items):
    with_vllm, with_hf = configs(smollm2, server, pooling="tokens", max_tokens=7)
    served, hf = LLMEncoder(with_vllm).encode(items), LLMEncoder(with_hf).encode(items)
    assert max(layer_errors(served, hf).values()) < LAYER_ERROR
    assert served.stats["truncated"] == hf.stats["truncated"] > 0


def test_bfloat16_states_travel_as_such(smollm2, server, items):
    with_vllm, with_hf = configs(smollm2, server, pooling="tokens", store_dtype="bfloat16")
    served, hf = LLMEncoder(with_vllm).encode(items), LLMEncoder(with_hf).encode(items)
    for name, arrays in hf.values.items():
        got, wanted = (bfloat16_to_float32(v["states"]) for v in (served.values[name], arrays))
        assert np.mean(got != wanted) < 0.02  # a number that lies between two may be rounded either way
        assert np.linalg.norm(got - wanted) < STEP * np.linalg.norm(wanted)


def test_one_feature_of_several_is_made_alone(smollm2, server):
    with_vllm, _ = configs(smollm2, server)
    encoder = LLMEncoder(with_vllm)
    name = with_vllm.feature_name(29)
    alone, all_of_them = encoder.encode(["a cat"], [name]).values, encoder.encode(["a cat"]).values
    assert list(alone) == [name]
    assert np.allclose(alone[name]["states"], all_of_them[name]["states"], rtol=1e-5)


def test_duplicates_have_the_same_states(smollm2, server):
    with_vllm, _ = configs(smollm2, server)
    states = LLMEncoder(with_vllm).encode(["a cat on a wall"] * 200).values
    for arrays in states.values():
        errors = np.linalg.norm(arrays["states"] - arrays["states"][0], axis=1)
        assert (errors < 1e-5 * np.linalg.norm(arrays["states"][0])).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3", "mistral", "gemma4_text"])
def test_other_families_in_every_layer(kind, smollm2, items, tmp_path):
    save_family(tmp_path / kind, kind, smollm2, **FAMILIES[kind])
    layers = (0, 1, 2, 3, 4)
    with running(tmp_path / kind, layers=layers, server_args=CHUNKED) as server:
        for pooling in ("mean", "last", "tokens"):
            with_vllm, with_hf = configs(tmp_path / kind, server, pooling=pooling, layers=layers)
            errors = layer_errors(LLMEncoder(with_vllm).encode(items), LLMEncoder(with_hf).encode(items))
            assert max(errors.values()) < LAYER_ERROR, errors


@pytest.mark.slow
def test_a_family_that_vllm_cannot_serve_is_refused_with_its_reason(smollm2, tmp_path):
    save_family(tmp_path / "gemma2", "gemma2", smollm2)
    with pytest.raises(EngineGone, match="does not support EAGLE3"), running(tmp_path / "gemma2", layers=(1,)):
        pass
