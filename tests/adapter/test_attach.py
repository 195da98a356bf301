"""Attaching to stock pipelines: real classes, every dtype, nothing left behind."""

import copy
import inspect

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionXLPipeline

from sur.adapter.adapter import Adapter
from sur.adapter.generate import generate, load_pipeline
from sur.config.adapter import AdapterConfig
from sur.shapes.base.base_model import BASE_MODEL

PROMPTS = [
    "we can see two red discs",
    "a child paints a blue box above a white wedge",
    "you notice one green plus sign",
]


def trained(dim: int = 128) -> Adapter:
    torch.manual_seed(0)
    adapter = Adapter(AdapterConfig(dim=dim))
    torch.nn.init.normal_(adapter.output.weight, std=0.05)
    return adapter.eval()


def pixels(pictures) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(BASE_MODEL)


def test_attached_states_are_the_adapters_and_the_negative_prompts_are_untouched(pipe):
    plain = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=["blurry"] * 3)
    adapter = trained().attach(pipe)
    try:
        adapted = adapter.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=["blurry"] * 3)
    finally:
        trained().detach(pipe)
    with torch.no_grad():
        torch.testing.assert_close(adapted[0], trained()(plain[0]).states)
    assert not torch.allclose(adapted[0], plain[0])
    assert torch.equal(adapted[1], plain[1])


def test_embeddings_given_by_the_caller_pass_through(pipe):
    states = torch.randn(1, 77, 128)
    trained().attach(pipe)
    try:
        by_name = pipe.encode_prompt(None, "cpu", 1, False, prompt_embeds=states)
        by_place = pipe.encode_prompt(None, "cpu", 1, False, None, states)
    finally:
        trained().detach(pipe)
    assert torch.equal(by_name[0], states)
    assert torch.equal(by_place[0], states)


def test_detached_pipeline_draws_what_it_drew_before(pipe):
    before = generate(pipe, PROMPTS, [0, 1, 2], steps=3)
    with_adapter = generate(pipe, PROMPTS, [0, 1, 2], trained(), steps=3)
    after = generate(pipe, PROMPTS, [0, 1, 2], steps=3)
    assert np.array_equal(pixels(before), pixels(after))
    assert not np.array_equal(pixels(before), pixels(with_adapter))
    assert "encode_prompt" not in vars(pipe)
    assert inspect.ismethod(pipe.encode_prompt)


def test_a_picture_does_not_depend_on_what_else_is_in_the_batch(pipe):
    together = pixels(generate(pipe, PROMPTS, [0, 1, 2], trained(), steps=4))
    alone = [pixels(generate(pipe, [p], [seed], trained(), steps=4))[0] for seed, p in enumerate(PROMPTS)]
    assert np.abs(together - np.stack(alone)).max() <= 1


def test_weight_zero_draws_what_the_bare_pipeline_draws(pipe):
    bare = generate(pipe, PROMPTS[:1], [0], steps=3)
    off = generate(pipe, PROMPTS[:1], [0], trained(), steps=3, weight=0.0)
    assert np.array_equal(pixels(bare), pixels(off))


def test_attaching_the_same_adapter_again_changes_its_weight_and_nothing_else(pipe):
    adapter = trained()
    once = generate(pipe, PROMPTS[:1], [0], adapter, steps=3)
    adapter.attach(pipe, weight=0.3)
    again = generate(pipe, PROMPTS[:1], [0], adapter, steps=3)  # attaches it once more, and takes it off
    assert np.array_equal(pixels(once), pixels(again))
    assert "encode_prompt" not in vars(pipe) and not [name for name in vars(pipe) if "adapter" in name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pipelines_work_and_come_close(pipe, dtype):
    half = load_pipeline(BASE_MODEL, dtype=dtype)
    states = half.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    assert states.dtype == dtype
    trained().attach(half)
    adapted = half.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    assert adapted.dtype == dtype
    with torch.no_grad():
        reference = trained()(pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]).states
    assert (adapted.float() - reference).abs().max() / reference.abs().max() < 0.05
    assert len(half(PROMPTS[0], num_inference_steps=2).images) == 1


def test_refusals_say_what_is_wrong(pipe):
    with pytest.raises(ValueError, match="trained on states 64 wide, StableDiffusionPipeline makes 128"):
        trained(64).attach(pipe)
    with pytest.raises(TypeError, match="no encode_prompt"):
        trained().attach(object())
    with pytest.raises(RuntimeError, match="no adapter attached"):
        trained().detach(pipe)
    trained().attach(pipe)
    with pytest.raises(RuntimeError, match="detach first"):
        trained().attach(pipe)
    trained().detach(pipe)


def test_works_on_stable_diffusion_xl(tmp_path):
    from tiny_models import save_pipeline

    xl = StableDiffusionXLPipeline.from_pretrained(save_pipeline(tmp_path, xl=True))
    plain = xl.encode_prompt(PROMPTS[0])
    trained(plain[0].shape[-1]).attach(xl)
    adapted = xl.encode_prompt(PROMPTS[0])
    assert not torch.allclose(plain[0], adapted[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1:], adapted[1:], strict=True))


def test_a_weight_lasts_as_long_as_the_adapter_is_attached(pipe):
    adapter = trained()
    full = pixels(generate(pipe, PROMPTS[:1], [0], adapter, steps=3))
    generate(pipe, PROMPTS[:1], [0], adapter, steps=3, weight=0.0)
    assert np.array_equal(pixels(generate(pipe, PROMPTS[:1], [0], adapter, steps=3)), full)
    assert adapter.weight == 1.0


def test_states_of_another_layer_are_refused(pipe):
    trained().attach(pipe)
    try:
        with pytest.raises(ValueError, match="leave clip_skip unset"):
            pipe(PROMPTS[:1], num_inference_steps=1, clip_skip=1)
    finally:
        trained().detach(pipe)


def test_a_deep_copy_encodes_with_its_own_text_encoder_and_adapter(pipe):
    adapter = trained()
    adapter.attach(pipe, 0.5)
    try:
        copied = copy.deepcopy(pipe)
        before = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
        assert torch.equal(copied.encode_prompt(PROMPTS, "cpu", 1, False)[0], before)
        with torch.no_grad():
            for parameter in copied.text_encoder.parameters():
                parameter.zero_()
            for parameter in copied.encode_prompt.adapter.parameters():
                parameter.zero_()
        copied.to(torch.float16)
        encoded = copied.encode_prompt(PROMPTS, "cpu", 1, False)[0]
        assert encoded.dtype == torch.float16
        assert not torch.allclose(encoded.float(), before)
        assert torch.equal(pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0], before)
        copied.encode_prompt.adapter.detach(copied)
        assert "encode_prompt" not in vars(copied)
        assert torch.equal(pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0], before)
    finally:
        adapter.detach(pipe)


def test_a_pipeline_made_of_anothers_parts_has_no_adapter_and_can_be_given_it(pipe):
    adapter = trained()
    plain = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    adapter.attach(pipe)
    try:
        for other in (StableDiffusionImg2ImgPipeline.from_pipe(pipe), type(pipe)(**pipe.components)):
            assert torch.equal(other.encode_prompt(PROMPTS, "cpu", 1, False)[0], plain)
            adapter.attach(other)
            adapted = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
            assert torch.equal(other.encode_prompt(PROMPTS, "cpu", 1, False)[0], adapted)
    finally:
        adapter.detach(pipe)


def test_what_stood_in_for_encode_prompt_before_is_there_again(pipe):
    own, calls = pipe.encode_prompt, []

    def counted(*args, **kwargs):
        calls.append(args)
        return own(*args, **kwargs)

    pipe.encode_prompt = counted
    try:
        adapter = trained()
        adapter.attach(pipe)
        adapter.attach(pipe, 0.5)
        pipe.encode_prompt(PROMPTS, "cpu", 1, False)
        adapter.detach(pipe)
        assert pipe.encode_prompt is counted and len(calls) == 1
    finally:
        del pipe.encode_prompt
