"""Tiny random pipelines of the real classes, one of each family, saved the way diffusers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import CORPUS, _clip_config, _clip_tokenizer, save_pipeline, tiny_vae
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

FAMILIES = ("sd1", "sd2", "sdxl", "sd3", "pixart-alpha", "pixart-sigma", "flux")
WIDTH = 48  # of T5


def save_family(folder: Path, family: str) -> Path:
    """A random pipeline of a family with a factor-4 VAE; returns its folder."""
    if family in ("sd1", "sdxl"):
        return save_pipeline(folder, xl=family == "sdxl")
    torch.manual_seed(0)
    if family == "sd2":
        return _save_sd2(folder)
    return {"sd3": _save_sd3, "flux": _save_flux}.get(family, _save_pixart)(folder, family)


def _save_sd2(folder: Path) -> Path:
    """As Stable Diffusion 1, but its denoiser predicts velocities."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    save_pipeline(folder)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    pipe.save_pretrained(folder)
    return folder


def _save_sd3(folder: Path, _family: str) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    clip = _clip_tokenizer(folder / "vocabulary")
    tokenizer, t5 = _t5()
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=WIDTH, caption_projection_dim=16, pooled_projection_dim=24 + 20,
        pos_embed_max_size=8,
    )  # fmt: skip
    StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), _vae(),
        CLIPTextModelWithProjection(_clip_config(len(clip), 16, 24)), clip,
        CLIPTextModelWithProjection(_clip_config(len(clip), 20, 20)), clip,
        t5, tokenizer,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _save_flux(folder: Path, _family: str) -> Path:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    clip = _clip_tokenizer(folder / "vocabulary")
    tokenizer, t5 = _t5()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64)
    FluxPipeline(
        scheduler, _vae(), CLIPTextModel(_clip_config(len(clip), 32, 24)), clip, t5, tokenizer, transformer
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _save_pixart(folder: Path, family: str) -> Path:
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtAlphaPipeline,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    tokenizer, t5 = _t5()
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, norm_num_groups=4,
        cross_attention_dim=16, sample_size=8, patch_size=2, caption_channels=WIDTH,
    )  # fmt: skip
    kind = PixArtAlphaPipeline if family == "pixart-alpha" else PixArtSigmaPipeline
    kind(tokenizer, t5, _vae(), transformer, DPMSolverMultistepScheduler()).save_pretrained(folder)
    return folder


def _vae() -> Any:
    return tiny_vae(shift_factor=0.1, scaling_factor=0.5)


def _t5() -> tuple[T5Tokenizer, T5EncoderModel]:
    pieces = sorted({piece for text in CORPUS for word in text.split() for piece in (f"▁{word}", *word)} | {"▁"})
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -float(len(piece))) for piece in pieces)]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=12, d_ff=64, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return tokenizer, T5EncoderModel(config).eval()
