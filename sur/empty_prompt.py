"""The empty prompt's states, an asset that belongs to no row: caption dropout puts them in a row's place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cache import FeatureSpec, Store, bfloat16_to_float32
from sur.encoders import TextEncoder
from sur.errors import ConfigError

if TYPE_CHECKING:
    from sur.config import RunConfig


def empty_prompt_name(config: RunConfig) -> str:
    """Name of the asset in the store."""
    return f"empty.{config.text.name}"


def empty_prompt_spec(config: RunConfig) -> FeatureSpec:
    """Arrays and identity of the asset: those of the text feature, of one prompt."""
    (spec,) = TextEncoder(config.text).specs()
    return replace(spec, name=empty_prompt_name(config), kind="empty prompt", identity={**spec.identity, "prompt": ""})


def compute_empty_prompt(store: Store, config: RunConfig) -> bool:
    """Encode the empty prompt and write the asset; False when it was there already."""
    spec = empty_prompt_spec(config)
    if store.has_asset(spec):
        return False
    encoder = TextEncoder(config.text)
    try:
        made = encoder.encode([""])
    finally:
        encoder.close()
    if made.bad:
        raise ConfigError(f"the empty prompt cannot be stored: {made.bad[0]}; try text.store_dtype=float32")
    store.write_asset(spec, {name: values[0] for name, values in made.values[encoder.feature_name].items()})
    return True


def load_empty_prompt(store: Store, config: RunConfig) -> dict[str, Tensor]:
    """The asset's arrays, without the axis of rows. Raises ConfigError when the store lacks it."""
    name = empty_prompt_name(config)
    if name not in store.assets():
        raise ConfigError(
            f"{store.path} has no {name}, which loss.denoising.caption_dropout needs; run `sur extract` with this "
            "config first"
        )
    dtypes = {key: array.dtype for key, array in store.assets()[name].arrays.items()}
    return {
        key: torch.from_numpy(bfloat16_to_float32(value) if dtypes[key] == "bfloat16" else np.array(value))
        for key, value in store.read_asset(name).items()
    }
