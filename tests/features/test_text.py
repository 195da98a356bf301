"""The text feature against the pipeline itself: the numbers that its denoiser is given."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from tiny_models import save_pipeline

from sur.config.features import TextConfig
from sur.features.encoders import TextEncoder, build_encoders

PROMPTS = ["a red cat", "", "x", "the red cat " * 60, "Ünïcödé (masterpiece:1.2), 8k", "cat red the"]


@pytest.fixture(scope="module", params=[False, True], ids=["sd", "sdxl"])
def tiny(request, tmp_path_factory):
    folder = save_pipeline(tmp_path_factory.mktemp("pipe") / "tiny", xl=request.param)
    return folder, DiffusionPipeline.from_pretrained(folder)


def config_for(folder, **changes) -> TextConfig:
    fields: dict[str, Any] = {"model": str(folder), "store_dtype": "float32"}
    return TextConfig(**(fields | changes))


def own_output(pipe, prompts):
    """encode_prompt of the whole pipeline: states, and pooled states for SDXL."""
    with torch.no_grad():
        out = pipe.encode_prompt(prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    return out[0], out[2] if len(out) == 4 else None


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_states_equal_the_pipelines_encode_prompt(tiny, batch_size):
    folder, pipe = tiny
    encoder = TextEncoder(config_for(folder, batch_size=batch_size), "complex")
    made = encoder.encode(PROMPTS).values["text.tiny.complex"]
    for i, prompt in enumerate(PROMPTS):
        states, pooled = own_output(pipe, [prompt])
        np.testing.assert_allclose(made["states"][i], states[0].numpy(), rtol=0, atol=2e-6)
        if pooled is not None:
            np.testing.assert_allclose(made["pooled"][i], pooled[0].numpy(), rtol=0, atol=2e-6)
    assert ("pooled" in made) == (len(encoder.shapes()["text.tiny.complex"]) == 3)


def test_same_batch_gives_the_very_same_bits_as_the_pipeline(tiny):
    folder, pipe = tiny
    made = TextEncoder(config_for(folder)).encode(PROMPTS).values["text.tiny.simple"]
    states, pooled = own_output(pipe, PROMPTS)
    np.testing.assert_array_equal(made["states"], states.numpy())
    if pooled is not None:
        np.testing.assert_array_equal(made["pooled"], pooled.numpy())


def test_the_denoiser_is_given_what_the_feature_holds(tiny, monkeypatch):
    folder, pipe = tiny
    made = TextEncoder(config_for(folder)).encode(["a red cat"]).values["text.tiny.simple"]
    seen = {}
    forward = type(pipe.unet).forward

    def spy(unet, sample, timestep, encoder_hidden_states=None, **kwargs):
        seen["states"] = encoder_hidden_states
        seen["added"] = kwargs.get("added_cond_kwargs")
        return forward(unet, sample, timestep, encoder_hidden_states=encoder_hidden_states, **kwargs)

    monkeypatch.setattr(type(pipe.unet), "forward", spy)
    pipe.set_progress_bar_config(disable=True)
    pipe("a red cat", num_inference_steps=1, guidance_scale=1.0, height=32, width=32, output_type="latent")
    np.testing.assert_array_equal(seen["states"].numpy(), made["states"])
    if "pooled" in made:
        np.testing.assert_array_equal(seen["added"]["text_embeds"].numpy(), made["pooled"])


def test_lengths_and_truncation_are_counted(tiny):
    folder, pipe = tiny
    encoded = TextEncoder(config_for(folder)).encode(PROMPTS)
    lengths = encoded.values["text.tiny.simple"]["length"]
    full = [len(pipe.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS[:3]]
    assert lengths[:3].tolist() == full and lengths[1] == 2 and lengths[3] == 77
    assert encoded.stats == {"tokens": int(lengths.sum()), "padded_tokens": 6 * 77, "truncated": 1}


def test_tokens_are_counted_without_weights(tiny, tmp_path):
    folder, _ = tiny
    copy = tmp_path / "tiny"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    encoder = TextEncoder(config_for(copy))
    assert sum(encoder.count_tokens(PROMPTS)) == TextEncoder(config_for(folder)).encode(PROMPTS).stats["tokens"]
    assert encoder.shapes() == TextEncoder(config_for(folder)).shapes()
    with pytest.raises(FileNotFoundError, match="no weights"):
        encoder.specs()


def test_nothing_is_written_to_a_log_or_screen(tiny, capfd, caplog):
    folder, _ = tiny
    TextEncoder(config_for(folder)).encode(PROMPTS)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_shapes_and_dtype_are_as_announced(tiny):
    folder, _ = tiny
    for dtype, numpy_dtype in (("float16", "float16"), ("bfloat16", "uint16")):
        encoder = TextEncoder(config_for(folder, store_dtype=dtype))
        (spec,) = encoder.specs()
        made = encoder.encode(PROMPTS[:2]).values[spec.name]
        assert set(made) == set(spec.arrays)
        for name, array in spec.arrays.items():
            assert made[name].shape == (2, *array.shape)
            assert made[name].dtype == ("int32" if name == "length" else numpy_dtype)


def test_identity_changes_with_weights_tokenizer_and_dtypes(tiny, tmp_path):
    folder, _ = tiny
    base = TextEncoder(config_for(folder)).specs()[0].identity
    assert TextEncoder(config_for(folder, batch_size=3, device="cpu")).specs()[0].identity == base
    xl = "text_encoder_2" in base
    other = save_pipeline(tmp_path / "tiny", xl=xl, seed=9)
    moved = TextEncoder(config_for(other)).specs()[0].identity
    changed = {key for key in base if moved[key] != base[key]}
    assert changed == ({"text_encoder", "text_encoder_2"} if xl else {"text_encoder"})
    half = TextEncoder(config_for(folder, compute_dtype="bfloat16")).specs()[0].identity
    assert {key for key in base if half[key] != base[key]} == {"compute_dtype"}


def test_the_two_text_encoders_share_one_loaded_pipeline(tiny):
    folder, _ = tiny
    simple, complex_ = build_encoders(text=config_for(folder))
    assert isinstance(simple, TextEncoder) and isinstance(complex_, TextEncoder)
    assert (simple.consumes, complex_.consumes) == ("simple", "complex")
    first = simple.encode(["a red cat"]).values["text.tiny.simple"]["states"]
    assert complex_._pipeline is simple._pipeline
    simple.close()
    second = complex_.encode(["a red cat"]).values["text.tiny.complex"]["states"]
    np.testing.assert_array_equal(first, second)


def test_neither_denoiser_nor_vae_is_loaded(tiny):
    folder, _ = tiny
    encoder = TextEncoder(config_for(folder))
    encoder.encode(["a red cat"])
    pipe = encoder._pipeline.loaded()
    assert pipe.unet is None and pipe.vae is None


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="set base_model"):
        TextEncoder(TextConfig())
    with pytest.raises(FileNotFoundError, match="correct the path"):
        TextEncoder(TextConfig(model=str(tmp_path / "nothing"))).shapes()
    (tmp_path / "model_index.json").write_text('{"_class_name": "Flux2Pipeline"}')
    with pytest.raises(ValueError, match="Flux2Pipeline are not supported"):
        TextEncoder(TextConfig(model=str(tmp_path))).shapes()


def test_names_need_no_files():
    config = TextConfig(model="runwayml/stable-diffusion-v1-5")
    assert config.feature_name("simple") == "text.stable-diffusion-v1-5.simple"
    assert TextConfig(slug="mine").feature_name("complex") == "text.mine.complex"
    with pytest.raises(ValueError, match="set base_model"):
        _ = TextConfig().name
