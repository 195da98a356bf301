"""The VAE feature against the pipeline's own VAE and the library's own image processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tiny_models import save_pipeline

from sur.config.features import VAEConfig
from sur.features.encoders import VAEEncoder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = save_pipeline(tmp_path_factory.mktemp("pipe") / "tiny")
    return folder, DiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    sizes = [(32, 32), (50, 32), (31, 77), (32, 32), (64, 64)]
    return [Image.fromarray(random.integers(0, 255, (h, w, 3), np.uint8)) for w, h in sizes]


def config_for(folder, **changes) -> VAEConfig:
    fields: dict[str, Any] = {"model": str(folder), "resolution": 32, "store_dtype": "float32"}
    return VAEConfig(**(fields | changes))


def own_distribution(pipe, image: Image.Image):
    """What the pipeline's image processor and VAE make of a square image."""
    with torch.no_grad():
        latent = pipe.vae.encode(pipe.image_processor.preprocess(image, height=32, width=32)).latent_dist
    return latent.mean[0].numpy(), latent.logvar[0].numpy()


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_mean_and_logvar_equal_the_pipelines_vae(tiny, images, batch_size):
    folder, pipe = tiny
    square = [image for image in images if image.width == image.height]
    made = VAEEncoder(config_for(folder, batch_size=batch_size)).encode(square).values["vae.tiny.32"]
    assert made["mean"].shape == (3, 1, 4, 8, 8)
    for i, image in enumerate(square):
        for name, wanted in zip(("mean", "logvar"), own_distribution(pipe, image), strict=True):
            np.testing.assert_allclose(made[name][i, 0], wanted, rtol=0, atol=2e-5)


def test_flips_add_the_mirrored_image_as_view_1(tiny, images):
    folder, _ = tiny
    plain = VAEEncoder(config_for(folder)).encode(images).values["vae.tiny.32"]
    encoded = VAEEncoder(config_for(folder, flips=True)).encode(images)
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    made, other = encoded.values["vae.tiny.32"], VAEEncoder(config_for(folder)).encode(mirrored)
    assert made["mean"].shape == (5, 2, 4, 8, 8) and encoded.stats == {"images": 5, "views": 10}
    for name in ("mean", "logvar"):
        np.testing.assert_array_equal(made[name][:, 0], plain[name][:, 0])
        wanted = other.values["vae.tiny.32"][name][:, 0]
        np.testing.assert_allclose(made[name][:, 1], wanted, rtol=0, atol=1e-4)
    assert np.abs(made["mean"][:, 0] - made["mean"][:, 1]).max() > 0.01


def test_crop_policies_see_what_they_say(tiny):
    folder, _ = tiny
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    middle = Image.new("RGB", (32, 32), "blue")

    def mean(crop: str, image: Image.Image) -> np.ndarray:
        return VAEEncoder(config_for(folder, crop=crop)).encode([image]).values["vae.tiny.32"]["mean"]

    np.testing.assert_array_equal(mean("center", wide), mean("center", middle))
    np.testing.assert_array_equal(mean("stretch", wide), mean("stretch", wide.resize((32, 32), 1)))
    assert np.abs(mean("stretch", wide) - mean("center", wide)).max() > 0.01


def test_a_neighbour_does_not_change_an_images_latents(tiny, images):
    folder, _ = tiny
    encoder = VAEEncoder(config_for(folder))
    together = encoder.encode(images).values["vae.tiny.32"]["mean"]
    for i, image in enumerate(images):
        alone = encoder.encode([image]).values["vae.tiny.32"]["mean"][0]
        np.testing.assert_allclose(alone, together[i], rtol=0, atol=2e-5)


def test_announced_arrays_are_the_ones_made(tiny, images):
    folder, _ = tiny
    encoder = VAEEncoder(config_for(folder, flips=True, store_dtype="float16"))
    (spec,) = encoder.specs()
    assert spec.name == "vae.tiny.32" and spec.kind == "vae"
    for name, made in encoder.encode(images).values[spec.name].items():
        assert made.shape[1:] == spec.arrays[name].shape and made.dtype == np.float16


def test_nothing_but_device_and_batch_stays_out_of_the_identity(tiny):
    folder, _ = tiny

    def identity(**changes):
        return VAEEncoder(config_for(folder, **changes)).specs()[0].identity

    base = identity()
    assert identity(batch_size=3, device="cpu") == base
    changes = {
        "crop": "stretch",
        "flips": True,
        "compute_dtype": "bfloat16",
        "resolution": 64,
    }
    for field, value in changes.items():
        changed = identity(**{field: value})
        assert {key for key in base if changed[key] != base[key]} == {field}


def test_a_vae_folder_by_itself_works(tiny, images):
    folder, _ = tiny
    whole = VAEEncoder(config_for(folder)).encode(images[:1]).values["vae.tiny.32"]["mean"]
    alone = VAEEncoder(config_for(folder / "vae", slug="tiny")).encode(images[:1]).values["vae.tiny.32"]["mean"]
    np.testing.assert_array_equal(whole, alone)


def test_errors_say_what_to_do(tiny, tmp_path):
    folder, _ = tiny
    with pytest.raises(ValueError, match="shrinks by 4; use a multiple of it such as 32"):
        VAEEncoder(config_for(folder, resolution=34)).shapes()
    with pytest.raises(ValueError, match="an AutoencoderKL is needed"):
        VAEEncoder(config_for(folder / "unet")).shapes()
    with pytest.raises(ValueError, match="set base_model"):
        VAEEncoder(VAEConfig())
