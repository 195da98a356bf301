"""Every family of pipelines, end to end: extract, train with the denoiser, attach, generate."""

from __future__ import annotations

import inspect
import warnings

import diffusers
import numpy as np
import peft
import pytest
import torch
from tiny_families import FAMILIES, save_family
from tiny_models import save_llm
from tiny_run import save_rows, tiny_config
from torch.nn.functional import mse_loss

from sur.adapter.adapter import Adapter
from sur.adapter.generate import generate, load_pipeline
from sur.config.adapter import AdapterConfig
from sur.config.features import TextConfig
from sur.features.encoders import TextEncoder
from sur.features.extraction import extract
from sur.features.readout import readout_arrays
from sur.models.denoiser import FrozenDenoiser, Noised, Text
from sur.models.families import FAMILIES as KNOWN
from sur.models.families import family_of
from sur.support.errors import ConfigError
from sur.training.fit import fit
from sur.training.setup import counted_tokens

# numpy's word to diffusers' DPM-Solver scheduler, which PixArt has
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
PROMPTS = ["there are two red circles", "", "The Cat ", "x " * 600]
SMALL = {"num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}


@pytest.fixture(scope="module", params=FAMILIES)
def pipeline(request, tmp_path_factory):
    """A family's folder with its pipeline, loaded whole."""
    folder = save_family(tmp_path_factory.mktemp(request.param) / "pipe", request.param)
    return request.param, folder, load_pipeline(folder)


def family(pipe):
    return family_of(type(pipe).__name__)


def trained(width: int) -> Adapter:
    torch.manual_seed(0)
    adapter = Adapter(AdapterConfig(dim=width, heads=4))
    torch.nn.init.normal_(adapter.output.weight, std=0.2)
    return adapter.eval()


def width(pipe) -> int:
    return getattr(pipe, family(pipe).denoiser).config[family(pipe).width]


def encode(pipe, prompts, **given):
    """encode_prompt with a guidance whose negative prompt is empty, whatever arguments a family knows."""
    known = inspect.signature(pipe.encode_prompt).parameters
    usual = {"prompt_2": None, "prompt_3": None, "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    usual = {name: value for name, value in usual.items() if name in known}
    with torch.no_grad():
        return pipe.encode_prompt(prompts, device="cpu", **usual, **given)


def draw(pipe, prompts, **given):
    noise = [torch.Generator().manual_seed(i) for i in range(len(prompts) * given.get("num_images_per_prompt", 1))]
    return pipe(prompts, generator=noise, **SMALL, **unbinned(pipe), **given).images


def unbinned(pipe):
    """PixArt would draw in the sizes that it was trained for."""
    return {"use_resolution_binning": False} if family(pipe).name.startswith("PixArt") else {}


def test_the_feature_is_what_the_pipeline_gives_its_denoiser(pipeline):
    _, folder, pipe = pipeline
    made = TextEncoder(TextConfig(model=str(folder), slug="t", store_dtype="float32")).encode(PROMPTS)
    values = made.values["text.t.simple"]
    out = encode(pipe, PROMPTS)
    np.testing.assert_array_equal(values["states"], out[0].numpy())
    for name, place in (("pooled", family(pipe).pooled), ("mask", family(pipe).mask)):
        assert (name in values) == (place is not None)
        if place is not None:
            np.testing.assert_array_equal(values[name], out[place].numpy())
    if "mask" in values:
        assert (values["length"] == values["mask"].sum(1)).all()
    assert values["length"].max() <= values["states"].shape[1] and made.stats["truncated"] == 1


def test_fewer_t5_states_are_those_that_the_pipeline_makes_when_told_so(pipeline):
    _, folder, pipe = pipeline
    config = TextConfig(model=str(folder), slug="t", store_dtype="float32", t5_tokens=20)
    if not family(pipe).t5_tokens:
        with pytest.raises(ValueError, match="has no T5"):
            TextEncoder(config).encode(["a"])
        return
    states = TextEncoder(config).encode(PROMPTS).values["text.t.simple"]["states"]
    np.testing.assert_array_equal(states, encode(pipe, PROMPTS, max_sequence_length=20)[0].numpy())


def test_how_many_t5_states_is_what_diffusers_says():
    for name in ("StableDiffusion3Pipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline", "FluxPipeline"):
        known = inspect.signature(getattr(diffusers, name).encode_prompt).parameters["max_sequence_length"]
        assert family_of(name).t5_tokens == known.default


def test_a_prompt_that_is_cut_has_as_many_real_tokens_as_the_losses_know(pipeline):
    _, folder, _ = pipeline
    encoder = TextEncoder(TextConfig(model=str(folder)))
    (spec,) = encoder.specs()
    encoded = encoder.encode([PROMPTS[0], " ".join(["a red circle waits for the rain to stop"] * 200)])
    short, cut = encoded.values[spec.name]["length"].tolist()
    assert short < cut == counted_tokens(spec)
    assert encoded.stats["truncated"] == 1


def test_another_number_of_t5_states_than_in_training_is_said_once(tmp_path):
    pipe = load_pipeline(save_family(tmp_path / "pixart-alpha", "pixart-alpha"))
    for t5_tokens, same, other in ((None, 120, 60), (40, 40, 120)):
        text = {"pipeline": "PixArtAlphaPipeline"} | ({"t5_tokens": t5_tokens} if t5_tokens else {})
        adapter = Adapter(AdapterConfig(dim=width(pipe)), trained_on={"text": text})
        adapter.attach(pipe)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for tokens in (same, other, other):
                pipe.encode_prompt(PROMPTS[0], do_classifier_free_guidance=False, max_sequence_length=tokens)
        messages = [str(each.message) for each in said if "states of T5" in str(each.message)]
        assert len(messages) == 1 and f"max_sequence_length={same}" in messages[0]
        adapter.detach(pipe)


def test_an_adapter_of_another_family_of_the_same_width_is_refused(tmp_path):
    pipe = load_pipeline(save_family(tmp_path / "flux", "flux"))
    other = Adapter(AdapterConfig(dim=width(pipe)), trained_on={"text": {"pipeline": "PixArtSigmaPipeline"}})
    with pytest.raises(ValueError, match="trained for PixArt-sigma, this is Flux"):
        other.attach(pipe)


def test_stable_diffusion_3_without_its_t5_is_refused(tmp_path):
    folder = save_family(tmp_path / "sd3", "sd3")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    with pytest.raises(ValueError, match="has no T5"):
        trained(width(pipe)).attach(pipe)


def test_pictures_are_drawn_with_as_many_t5_states_as_the_adapter_was_trained_on(tmp_path):
    pipe = load_pipeline(save_family(tmp_path / "flux", "flux"))
    adapter = Adapter(AdapterConfig(dim=width(pipe)), trained_on={"text": {"t5_tokens": 20}}).eval()
    seen = []
    adapter.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape[1]))
    generate(pipe, ["a cat"], [0], adapter, t5_tokens=adapter.t5_tokens, steps=1, size=32)
    assert seen == [20]


@pytest.mark.parametrize("name", ["Flux2Pipeline", "StableDiffusionLDM3DPipeline", "HunyuanDiTPipeline", ""])
def test_other_families_are_refused_by_name(name):
    with pytest.raises(ValueError, match="are not supported; those of these families are: Stable Diffusion 1"):
        family_of(name)
    assert len(set(KNOWN)) == len(KNOWN)


def test_the_denoiser_is_called_as_its_pipeline_calls_it(pipeline, monkeypatch):
    """The last prediction of a guidance-free generation, made again from what the cache would hold."""
    _, folder, pipe = pipeline
    own = family(pipe)
    module = getattr(pipe, own.denoiser)
    seen: list[tuple] = []
    hook = module.register_forward_hook(lambda _m, a, k, out: seen.append((a, k, out[0])), with_kwargs=True)
    off = 1.0 if own.name != "Flux" else 7.0  # Flux' guidance is an input, here the pipeline's and ours the same
    monkeypatch.setattr("sur.models.denoiser.FLUX_GUIDANCE", 7.0)
    draw(pipe, PROMPTS[:2], guidance_scale=off)
    hook.remove()
    args, kwargs, wanted = seen[-1]
    given = dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs
    noisy, steps = given.get("hidden_states", given.get("sample")), given["timestep"]
    out = encode(pipe, PROMPTS[:2])
    text = Text(
        out[0],
        None if own.pooled is None else out[own.pooled],
        None if own.mask is None else out[own.mask].bool(),
    )
    denoiser = FrozenDenoiser.from_pipeline(str(folder))
    if own.name == "Flux":
        noisy, wanted = (pipe._unpack_latents(each, 32, 32, pipe.vae_scale_factor) for each in (noisy, wanted))
        steps = steps * 1000
    with torch.no_grad():
        made = denoiser(Noised(noisy, noisy, noisy, steps.expand(2), None), text)
    torch.testing.assert_close(made, wanted[:, : made.shape[1]], rtol=1e-4, atol=1e-5)


def test_latents_without_noise_and_the_target_lead_back_to_the_picture(pipeline):
    """What the denoiser is to predict, if it did, gives the clean latents by the scheduler's own formula."""
    _, folder, _ = pipeline
    denoiser = FrozenDenoiser.from_pipeline(str(folder))
    torch.manual_seed(0)
    noised = denoiser.noise(torch.randn(64, 4, 8, 8), torch.full((64, 4, 8, 8), -20.0))
    target = denoiser.target(noised)
    if denoiser.prediction == "flow":
        sigma = (noised.timesteps / 1000)[:, None, None, None]
        back = noised.noisy - sigma * target
    else:
        kept = denoiser.schedule.alphas_cumprod[noised.timesteps][:, None, None, None]
        back = kept.sqrt() * noised.noisy - (1 - kept).sqrt() * target
        if denoiser.prediction == "epsilon":
            back = (noised.noisy - (1 - kept).sqrt() * target) / kept.sqrt()
        torch.testing.assert_close(noised.snr, (kept / (1 - kept)).flatten())
    torch.testing.assert_close(back, noised.clean, rtol=1e-3, atol=1e-3)


def test_flows_are_noised_at_the_levels_that_their_scheduler_uses(tmp_path):
    """Levels drawn evenly in the scheduler's own list must be ours, shifted alike."""
    for name in ("sd3", "flux"):
        denoiser = FrozenDenoiser.from_pipeline(str(save_family(tmp_path / name, name)))
        even = torch.linspace(0.999, 0.001, 50)
        scheduler = type(denoiser.schedule).from_config(denoiser.schedule.config)
        config = scheduler.config
        latents = torch.zeros(1, 4, 8, 8)
        mu = None
        if config.use_dynamic_shifting:
            from diffusers.pipelines.flux.pipeline_flux import calculate_shift

            mu = calculate_shift(
                16, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
            )
        scheduler.set_timesteps(sigmas=even.tolist(), mu=mu)
        torch.testing.assert_close(denoiser._shifted(even, latents), scheduler.sigmas[:-1], rtol=1e-5, atol=1e-6)


def test_extract_train_attach_and_generate(pipeline, tmp_path):
    name, folder, pipe = pipeline
    rows = save_rows(tmp_path / "rows", broken=False)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pipe").symlink_to(folder)
    save_llm(tmp_path / "models" / "llm")
    config = tiny_config(
        tmp_path, tmp_path / "models", rows,
        "loss.alignment.form=denoiser", "loss.denoising.weight=1", "loss.denoising.noise_offset=0.05",
        "loss.distillation.form=pooled", "train.steps=3", "train.batch_size=4",
        "train.validation_fraction=0", "train.learning_rate=0.05", "train.warmup_steps=0", "train.schedule=constant",
    )  # fmt: skip
    extract(config)
    adapter = Adapter.from_pretrained(fit(config))
    assert adapter.config.dim == width(pipe)
    plain = draw(pipe, PROMPTS[:2])
    adapter.attach(pipe, weight=0.0)
    np.testing.assert_array_equal(draw(pipe, PROMPTS[:2]), plain)
    adapter.detach(pipe)
    adapter.attach(pipe)
    adapted = draw(pipe, PROMPTS[:2])
    adapter.detach(pipe)
    assert np.abs(adapted - plain).max() > 1e-3
    np.testing.assert_array_equal(draw(pipe, PROMPTS[:2]), plain)
    again = Adapter.from_pretrained(adapter.save_pretrained(tmp_path / "again")).attach(load_pipeline(folder))
    np.testing.assert_array_equal(draw(again, PROMPTS[:2]), adapted)


def test_only_the_positive_prompts_states_change(pipeline):
    _, _, pipe = pipeline
    plain = encode(pipe, PROMPTS)
    adapter = trained(width(pipe))
    adapter.attach(pipe)
    try:
        adapted = encode(pipe, PROMPTS)
    finally:
        adapter.detach(pipe)
    mask = None if family(pipe).mask is None else plain[family(pipe).mask].bool()
    with torch.no_grad():
        torch.testing.assert_close(adapted[0], adapter(plain[0], mask=mask).states)
    assert not torch.allclose(adapted[0], plain[0])
    for before, after in zip(plain[1:], adapted[1:], strict=True):
        assert before is after is None or torch.equal(before, after)


def test_lists_several_pictures_negative_prompts_and_no_guidance(pipeline):
    name, _, pipe = pipeline
    adapter = trained(width(pipe))
    plain = {}
    variants = {"one": {}, "several": {"num_images_per_prompt": 2}, "unguided": {"guidance_scale": 1.0}}
    if name != "flux":
        variants["negative"] = {"negative_prompt": ["blue", "x"]}
    for key, given in variants.items():
        plain[key] = draw(pipe, PROMPTS[:2], **given)
    adapter.attach(pipe)
    try:
        adapted = {key: draw(pipe, PROMPTS[:2], **given) for key, given in variants.items()}
        alone = draw(pipe, PROMPTS[:1])
    finally:
        adapter.detach(pipe)
    for key, pictures in adapted.items():
        assert len(pictures) == len(plain[key]) and np.abs(pictures - plain[key]).max() > 1e-3
    np.testing.assert_allclose(alone[0], adapted["one"][0], atol=1e-4)


def test_with_offloaded_models(pipeline):
    name, folder, pipe = pipeline
    adapter = trained(width(pipe))
    adapter.attach(pipe)
    try:
        wanted = draw(pipe, PROMPTS[:2])
    finally:
        adapter.detach(pipe)
    offloaded = load_pipeline(folder)
    offloaded.enable_model_cpu_offload(device="cpu")  # the hooks of a GPU, on the one device that is here
    adapter.attach(offloaded)
    np.testing.assert_array_equal(draw(offloaded, PROMPTS[:2]), wanted)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux"])
def test_with_a_lora_loaded(kind, tmp_path):
    pipe = load_pipeline(save_family(tmp_path / "pipe", kind))
    torch.manual_seed(0)
    encoder = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    pipe.text_encoder.add_adapter(encoder)
    denoiser = peft.LoraConfig(r=2, target_modules=["to_k", "to_q"], init_lora_weights=False)
    getattr(pipe, family(pipe).denoiser).add_adapter(denoiser)
    states = encode(pipe, PROMPTS[:2])[0]
    plain = draw(pipe, PROMPTS[:2])
    adapter = trained(width(pipe))
    adapter.attach(pipe)
    with torch.no_grad():
        torch.testing.assert_close(encode(pipe, PROMPTS[:2])[0], adapter(states).states)
    adapted = draw(pipe, PROMPTS[:2])
    adapter.detach(pipe)
    assert np.abs(adapted - plain).max() > 1e-3
    np.testing.assert_array_equal(draw(pipe, PROMPTS[:2]), plain)


def test_embeddings_passed_by_hand_pass_through(pipeline):
    name, _, pipe = pipeline
    out = encode(pipe, PROMPTS[:2])
    names = {
        "sd": ("prompt_embeds", "negative_prompt_embeds"),
        "xl": ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
        "pixart": (
            "prompt_embeds",
            "prompt_attention_mask",
            "negative_prompt_embeds",
            "negative_prompt_attention_mask",
        ),
        "flux": ("prompt_embeds", "pooled_prompt_embeds"),
    }
    kind = name.partition("-")[0] if name.startswith(("pixart", "flux")) else "sd" if len(out) == 2 else "xl"
    given = dict(zip(names[kind], out, strict=False))
    if kind == "pixart":
        given["negative_prompt"] = None

    def drawn():
        noise = [torch.Generator().manual_seed(i) for i in range(2)]
        return pipe(generator=noise, **SMALL, **unbinned(pipe), **given).images

    plain = drawn()
    trained(width(pipe)).attach(pipe)
    try:
        np.testing.assert_array_equal(drawn(), plain)
    finally:
        trained(width(pipe)).detach(pipe)


def test_attention_alignment_is_for_cross_attention(pipeline, tmp_path):
    name, folder, pipe = pipeline
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pipe").symlink_to(folder)
    save_llm(tmp_path / "models" / "llm")
    rows = save_rows(tmp_path / "rows", broken=False)
    config = tiny_config(
        tmp_path, tmp_path / "models", rows,
        "train.steps=2", "train.batch_size=4", "train.validation_fraction=0", "readout.queries_per_layer=16",
    )  # fmt: skip
    if family(pipe).denoiser == "transformer":
        with pytest.raises(ConfigError, match=r"loss.alignment.form=denoiser"):
            readout_arrays(config.base, config.readout)
        return
    extract(config)
    fit(config)


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_the_min_snr_weight(name, tmp_path):
    from sur.adapter.losses import denoising_loss

    denoiser = FrozenDenoiser.from_pipeline(str(save_family(tmp_path / name, name)))
    torch.manual_seed(0)
    noised = denoiser.noise(torch.randn(6, 4, 8, 8), torch.zeros(6, 4, 8, 8))
    text = Text(torch.randn(6, 7, 32))
    errors = [
        mse_loss(denoiser(noised, text)[i], denoiser.target(noised)[i]) * min(float(snr), 5.0) / (snr + (name == "sd2"))
        for i, snr in enumerate(noised.snr)
    ]
    torch.testing.assert_close(denoising_loss(denoiser, noised, text, 5.0), torch.stack(errors).mean())
    plain = mse_loss(denoiser(noised, text), denoiser.target(noised))
    torch.testing.assert_close(denoising_loss(denoiser, noised, text), plain)


def test_a_min_snr_weight_of_a_flow_is_refused(tmp_path):
    from sur.adapter.losses import prepare_denoiser
    from sur.config.losses import DenoisingConfig

    folder = save_family(tmp_path / "sd3", "sd3")
    with pytest.raises(ConfigError, match="min_snr_gamma"):
        prepare_denoiser(str(folder), None, DenoisingConfig(weight=1, min_snr_gamma=5))


@pytest.mark.parametrize("name", FAMILIES)
def test_ways_to_run_the_denoiser_do_not_change_its_gradient(name, tmp_path):
    from sur.adapter.losses import denoising_loss, prepare_denoiser
    from sur.config.losses import DenoisingConfig

    folder = save_family(tmp_path / name, name)

    def gradient(**settings):
        denoiser = prepare_denoiser(str(folder), None, DenoisingConfig(weight=1, **settings))
        torch.manual_seed(0)
        noised = denoiser.noise(torch.randn(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
        pooled = {"sdxl": 24, "sd3": 44, "flux": 32}.get(name)
        width = denoiser.model.config[denoiser.family.width]
        states = torch.randn(2, 9, width, requires_grad=True)
        mask = torch.ones(2, 9, dtype=torch.bool) if name.startswith("pixart") else None
        denoising_loss(denoiser, noised, Text(states, pooled and torch.randn(2, pooled), mask)).backward()
        assert all(p.grad is None for p in denoiser.parameters())
        return states.grad

    plain = gradient()
    assert plain.abs().max() > 0
    for settings in ({"gradient_checkpointing": True}, {"channels_last": True}):
        torch.testing.assert_close(gradient(**settings), plain, rtol=1e-3, atol=1e-7)
    half = gradient(dtype="bfloat16").float()
    assert (half - plain).norm() < 0.1 * plain.norm()
