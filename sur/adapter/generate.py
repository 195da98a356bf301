"""Prompt to picture through a stock diffusers pipeline, with or without an adapter, same seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sur.adapter.base import BaseAdapter
from sur.models.libraries import quiet_libraries
from sur.models.locate import library_name
from sur.support.errors import ConfigError


def load_pipeline(model: str | Path, revision: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """A text-to-image pipeline (safetensors only), without progress bar, on CUDA if there is one.

    Raises ConfigError when there is none at the folder or of the hub id.
    """
    from diffusers import DiffusionPipeline

    try:
        with quiet_libraries(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers|transformers")
            pipe = DiffusionPipeline.from_pretrained(
                library_name(model), revision=revision, torch_dtype=dtype, use_safetensors=True
            )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no pipeline could be loaded from {str(model)!r}: {error}\nCorrect the path or hub id; a hub model must "
            "be downloaded once, with HF_HUB_OFFLINE unset, and have safetensors weights"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    with quiet_libraries():
        return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def generate(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    adapter: BaseAdapter | None = None,
    *,
    steps: int = 25,
    guidance: float = 7.5,
    weight: float | None = None,
    size: int | None = None,
    t5_tokens: int | None = None,
    batch_size: int = 64,
    on_pictures: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """One picture a prompt; picture i depends on prompt i and seed i alone, unless the adapter is a released one.

    size: pixels of a picture's side, None = the pipeline's own. t5_tokens: states that T5 makes of a prompt, as the
    adapter was trained with (`Adapter.t5_tokens`), None = the pipeline's own number. The adapter is attached for the
    call and detached after it; `on_pictures` hears how many pictures each batch made. Raises ValueError unless there
    is a seed a prompt.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, got {len(seeds)}")
    if adapter is not None:
        adapter.attach(pipe, weight)
    given = {} if size is None else {"height": size, "width": size}
    if t5_tokens is not None:
        given["max_sequence_length"] = t5_tokens
    try:
        pictures: list[Image.Image] = []
        for start in range(0, len(prompts), batch_size):
            part = slice(start, start + batch_size)
            noise = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
            made = pipe(
                list(prompts[part]), num_inference_steps=steps, guidance_scale=guidance, generator=noise, **given
            )
            pictures += made.images
            if on_pictures is not None:
                on_pictures(len(made.images))
        return pictures
    finally:
        if adapter is not None:
            adapter.detach(pipe)
