"""Builds the shapes world's base model from a seed: `python -m sur.shapes.base.base_model FOLDER`.

The result is an ordinary StableDiffusionPipeline folder: safetensors, the denoiser and the VAE in fp16. The one in
`sur/shapes/weights` ships with the package; nobody needs to run this to use it. Takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from rich.progress import track
from transformers import CLIPTextModel, CLIPTokenizer

from sur.shapes.base.train_denoiser import build_scheduler, train_denoiser
from sur.shapes.base.train_text import add_words, foreign_words, train_text_encoder, train_tokenizer
from sur.shapes.base.train_vae import encode_all, train_vae
from sur.shapes.prompts import complex_prompt
from sur.shapes.scenes import render_scene, sample_scene

BASE_MODEL = Path(__file__).parents[1] / "weights"
SCENES = 12_000
PROMPTS_PER_SCENE = 2
_log = logging.getLogger(__name__)


def build_base_model(folder: Path, seed: int = 0, steps: int = 3000, more_steps: int = 3600) -> None:
    """Train tokenizer, text encoder, VAE and UNet one after the other; finished parts are kept and reused.

    The UNet has two rounds, the second with a gentler learning rate. Scenes of three and four things, the hardest,
    come twice as often.
    """
    tokenizer, text_encoder = _text(folder, seed)
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(SCENES)]
    pictures = np.stack([np.asarray(render_scene(scene, rng)) for scene in track(scenes, "pictures")])
    vae = _vae(folder, pictures, seed)
    prompts = [complex_prompt(scene, rng) for scene in scenes for _ in range(PROMPTS_PER_SCENE)]
    unique = sorted({"", *prompts})
    index = {prompt: i for i, prompt in enumerate(unique)}
    states = _states(tokenizer, text_encoder, unique)
    prompt_of = torch.tensor([index[p] for p in prompts]).reshape(SCENES, PROMPTS_PER_SCENE)
    data = (encode_all(vae, pictures), vae.config["scaling_factor"], states, prompt_of, states[index[""]].float())
    hard = torch.tensor([2.0 if scene.count > 2 else 1.0 for scene in scenes])
    part = folder / "parts" / "unet"
    if not part.exists():
        save_unet(train_denoiser(*data, seed, steps, weight=hard), steps, part)
    start = UNet2DConditionModel.from_pretrained(part)
    save_unet(train_denoiser(*data, seed + 1, more_steps, start, peak=4e-4, weight=hard), more_steps, folder / "unet")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    for model in (unet, vae):
        model.register_to_config(_name_or_path="")  # do not store the local training path
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=build_scheduler(),  # type: ignore
        unet=unet,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,  # type: ignore[arg-type]
    )  # fmt: skip
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    # diffusers loads its models in float32, transformers in the stored dtype: in fp16 the two would not fit together
    text_encoder.float().save_pretrained(folder / "text_encoder", safe_serialization=True)


def save_unet(training: Iterator, steps: int, folder: Path) -> None:
    """Run a training to its end and write the moving average of its weights, fp16."""
    last = None
    for last in track(training, "unet", total=steps):
        if last[0] % 200 == 199:
            _log.info("unet step %d loss %.4f", last[0] + 1, last[1])
    assert last is not None
    _, _, unet, average = last
    average.copy_to(unet.parameters())
    unet.half().save_pretrained(folder, safe_serialization=True)


def _text(folder: Path, seed: int, steps: int = 600) -> tuple[CLIPTokenizer, CLIPTextModel]:
    parts = folder / "parts"
    if (parts / "text_encoder").exists():
        return CLIPTokenizer.from_pretrained(parts / "tokenizer"), CLIPTextModel.from_pretrained(parts / "text_encoder")
    tokenizer = train_tokenizer(seed)
    model = None
    for step, loss, trained in track(train_text_encoder(tokenizer, seed, steps), "text encoder", total=steps):
        if step % 100 == 99:
            _log.info("text encoder step %d loss %.4f", step + 1, loss)
        model = trained
    assert model is not None
    tokenizer = add_words(tokenizer, model, foreign_words(), seed)
    tokenizer.save_pretrained(parts / "tokenizer")
    model.eval().half().save_pretrained(parts / "text_encoder")
    return tokenizer, model.float()


def _vae(folder: Path, pictures: np.ndarray, seed: int, steps: int = 1200) -> AutoencoderKL:
    part = folder / "parts" / "vae"
    if part.exists():
        return AutoencoderKL.from_pretrained(part).eval()
    vae = None
    for step, loss, trained in track(train_vae(pictures, seed, steps), "vae", total=steps):
        if step % 100 == 99:
            _log.info("vae step %d L1 %.4f", step + 1, loss)
        vae = trained
    assert vae is not None
    vae = vae.eval().half().float()
    mean, logvar = encode_all(vae, pictures[:1000])
    std = float((mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape)).std())
    vae.register_to_config(scaling_factor=1 / std)
    vae.save_pretrained(part)
    return vae


@torch.no_grad()
def _states(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: list[str]) -> torch.Tensor:
    """fp16 states of all prompts, padded as the pipeline pads them, (prompts, tokens, dim)."""
    parts = []
    for i in track(range(0, len(prompts), 128), "prompts"):
        ids = tokenizer(prompts[i : i + 128], padding="max_length", truncation=True, return_tensors="pt").input_ids
        parts.append(text_encoder(ids)[0].half())
    return torch.cat(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000, help="training steps of the UNet's first round")
    parser.add_argument("--more-steps", type=int, default=3600, help="of its second")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    build_base_model(arguments.folder, arguments.seed, arguments.steps, arguments.more_steps)
