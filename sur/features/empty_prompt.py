"""The empty prompt's states, encoded once: the asset that replaces captions which training drops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sur.cache import FeatureSpec, Store, bfloat16_to_float32
from sur.config.features import TextConfig
from sur.features.encoders import TextEncoder
from sur.support.errors import ConfigError


def empty_prompt_name(text: TextConfig) -> str:
    """Name of the asset in the store."""
    return f"empty.{text.name}"


def empty_prompt_spec(text: TextConfig) -> FeatureSpec:
    """Arrays and identity of the asset: those of the text feature, of one prompt."""
    return _spec_from(TextEncoder(text))


def compute_empty_prompt(store: Store, text: TextConfig) -> bool:
    """Encode the empty prompt and write the asset; False when it was stored already."""
    encoder = TextEncoder(text)
    spec = _spec_from(encoder)
    if store.has_asset(spec):
        return False
    try:
        encoded = encoder.encode([""])
    finally:
        encoder.close()
    if encoded.bad:
        raise ConfigError(f"the empty prompt cannot be stored: {encoded.bad[0]}; try text.store_dtype=float32")
    store.write_asset(spec, {name: values[0] for name, values in encoded.values[encoder.feature_name].items()})
    return True


def load_empty_prompt(store: Store, text: TextConfig) -> dict[str, Tensor]:
    """The asset's arrays, without the axis of rows. Raises ConfigError when the store lacks it."""
    name = empty_prompt_name(text)
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


def _spec_from(encoder: TextEncoder) -> FeatureSpec:
    (spec,) = encoder.specs()
    name = empty_prompt_name(encoder.config)
    return replace(spec, name=name, kind="empty prompt", identity={**spec.identity, "prompt": ""})
