"""The frozen denoiser: what a pipeline's configs change in its mathematics is followed, or refused by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKLOutput
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from tiny_models import save_pipeline, tiny_vae

from sur.adapter.losses.denoising import snr_weight
from sur.config.features import ReadoutConfig
from sur.features.readout import readout_arrays
from sur.models.denoiser import FrozenDenoiser, refuse_other_inputs, training_schedule
from sur.models.families import STABLE_DIFFUSION, STABLE_DIFFUSION_3, STABLE_DIFFUSION_XL
from sur.support.errors import ConfigError


@pytest.fixture(scope="module")
def xl(tmp_path_factory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("xl"), xl=True)


def changed(folder: Path, part: str, **settings) -> Path:
    """The pipeline with other settings in a part's config."""
    file = next((folder / part).glob("*config.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def test_latents_are_normalised_a_channel_as_the_pipeline_encodes_them(xl):
    """Against StableDiffusionXLImg2ImgPipeline.prepare_latents, for a VAE with a mean and a spread of each channel."""
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(xl)
    torch.manual_seed(1)
    pipe.vae = tiny_vae(scaling_factor=0.7, latents_mean=[0.3, -1.1, 0.0, 2.0], latents_std=[5.0, 0.8, 1.5, 2.5]).eval()
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        mean = pipe.vae.encode(picture).latent_dist.mean
        pipe.vae.encode = lambda _: AutoencoderKLOutput(  # its mean, no draw
            latent_dist=DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, -100.0)], dim=1))
        )
        wanted = pipe.prepare_latents(picture, None, 1, 1, torch.float32, "cpu", add_noise=False)
    denoiser = FrozenDenoiser(pipe.unet, diffusers.DDPMScheduler(), STABLE_DIFFUSION_XL, dict(pipe.vae.config))
    clean = denoiser.noise(mean, torch.full_like(mean, -100.0)).clean
    torch.testing.assert_close(clean, wanted)
    assert (clean - mean * 0.7).abs().max() > 0.1


@pytest.mark.parametrize(
    ("family", "config"),
    [
        (STABLE_DIFFUSION_XL, {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}),
        (STABLE_DIFFUSION_XL, {"_class_name": "EDMDPMSolverMultistepScheduler"}),
        (STABLE_DIFFUSION, {"_class_name": "CosineDPMSolverMultistepScheduler"}),
        (STABLE_DIFFUSION, {"_class_name": "CogVideoXDDIMScheduler", "beta_schedule": "scaled_linear"}),
        (STABLE_DIFFUSION_XL, {"_class_name": "FlowMatchEulerDiscreteScheduler"}),
        (STABLE_DIFFUSION_XL, {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}),
        (STABLE_DIFFUSION, {"_class_name": "SchedulerOfTomorrow"}),
        (STABLE_DIFFUSION, {}),
        (STABLE_DIFFUSION_3, {"_class_name": "EulerDiscreteScheduler"}),
        (STABLE_DIFFUSION_3, {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}),
    ],
)
def test_a_schedule_of_another_kind_is_refused_by_name(family, config):
    with pytest.raises(ConfigError, match=config.get("_class_name") or "this scheduler"):
        training_schedule(config, family)


def expected(kind, given) -> torch.Tensor:
    """The schedule of the scheduler itself, whose numpy calls warn."""
    with warnings.catch_warnings(action="ignore"):
        return kind(**given).alphas_cumprod


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "EulerDiscrete", "LCM", "HeunDiscrete", "UniPCMultistep", "TCD"])
def test_a_sampler_tells_the_schedule_of_training(name):
    """Betas that a config leaves out are those of its own class, not of DDPM."""
    kind = getattr(diffusers, f"{name}Scheduler")
    for given in ({}, {"beta_start": 0.003, "beta_end": 0.02, "beta_schedule": "scaled_linear"}):
        schedule = training_schedule({"_class_name": f"{name}Scheduler", **given}, STABLE_DIFFUSION)
        torch.testing.assert_close(schedule.alphas_cumprod, expected(kind, given))


@pytest.mark.parametrize(
    "settings",
    [
        {"addition_embed_type": "image_hint"},
        {"encoder_hid_dim_type": "ip_image_proj"},
        {"class_embed_type": "timestep"},
        {"num_class_embeds": 1000},
        {"time_cond_proj_dim": 256},
        {"attention_type": "gated"},
        {"in_channels": 9},
        {"in_channels": 7},
    ],
)
def test_a_denoiser_that_is_given_more_than_text_is_refused_by_what_it_is_given(xl, settings):
    config = json.loads((xl / "unet" / "config.json").read_text())
    refuse_other_inputs(config)
    with pytest.raises(ConfigError, match=next(iter(settings))):
        refuse_other_inputs(config | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 48},
        {"cross_attention_norm": "layer_norm"},
        {"only_cross_attention": [False, True]},
        {"only_cross_attention": True},
        {"dual_cross_attention": True},
    ],
)
def test_a_denoiser_that_changes_the_states_before_attention_has_no_read_out(tmp_path, settings):
    folder = changed(save_pipeline(tmp_path), "unet", **settings)
    with pytest.raises(ConfigError, match=next(iter(settings))):
        readout_arrays((str(folder), None), ReadoutConfig())


def test_pure_noise_has_a_weight(xl):
    """A schedule that ends in pure noise has a ratio of 0 there, where min(ratio, gamma) / ratio has the limit 1."""
    denoiser = FrozenDenoiser.from_pipeline(str(xl))
    noised = denoiser.noise(torch.randn(3, 4, 8, 8), torch.zeros(3, 4, 8, 8))
    noised = noised._replace(snr=torch.tensor([0.0, 2.0, 10.0]))
    torch.testing.assert_close(snr_weight(denoiser, noised, 5.0), torch.tensor([1.0, 1.0, 0.5]))
