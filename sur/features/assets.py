"""The denoiser's read-out: what its cross-attention layers ask of the text, cached once.

For each cross-attention layer a sample of its real queries, over pictures and timesteps under the complex
prompt, and its `to_k` and `to_v`. With them, training compares what the denoiser would read out of two sets of
text states without loading the denoiser (`sur.adapter.losses.alignment`).
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sur.cache import ArraySpec, FeatureSpec, Store
from sur.models.denoiser import FrozenDenoiser, Text, denoiser_folder, refuse_other_inputs, weights_folder
from sur.models.families import family_in
from sur.models.fingerprint import weights_fingerprint
from sur.models.libraries import major_version, pick_device
from sur.models.locate import PIPELINE_CONFIG, locate
from sur.models.readout import ReadOut
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from sur.config.run import RunConfig
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from sur.cache import bfloat16_to_float32
from sur.features.encoders import TextEncoder

if TYPE_CHECKING:
    from sur.config.run import RunConfig


ENCODER_VERSION = 1
_BATCH = 32


def readout_name(config: RunConfig) -> str:
    """Name of the asset in the store."""
    return f"readout.{config.text.name}"


def readout_spec(store: Store, config: RunConfig) -> FeatureSpec:
    """Arrays and identity of the asset; reads the denoiser's config and shapes, not its weights.

    Raises ConfigError for a denoiser that the read-out does not know, or a config without `vae`.
    """
    folder = denoiser_folder(*config.base)
    layers = _cross_attention(_skeleton(folder))
    identity = {
        "denoiser": weights_fingerprint(weights_folder(folder)),
        "layers": list(layers),
        "heads": [layer.heads for layer in layers.values()],
        "inputs": {name: store.features()[name].identity for name in _inputs(config) if name in store.features()},
        **config.readout.model_dump(),
        "diffusers": major_version("diffusers"),
        "encoder_version": ENCODER_VERSION,
    }
    return FeatureSpec(readout_name(config), "readout", identity, _arrays(layers, config.readout.queries_per_layer))


def readout_arrays(config: RunConfig) -> dict[str, ArraySpec]:
    """Arrays of the asset, from the denoiser's config alone (its weights need not be on this machine)."""
    folder = locate(*config.base, needed=PIPELINE_CONFIG).folder
    return _arrays(_cross_attention(_skeleton(folder)), config.readout.queries_per_layer)


def compute_readout(store: Store, config: RunConfig) -> bool:
    """Run the denoiser on cached latents and write the asset; False when it was there already.

    Needs the VAE's and the complex prompts' features. Raises ConfigError when no row has both.
    """
    spec = readout_spec(store, config)
    if store.has_asset(spec):
        return False
    settings = config.readout
    slots = _rows_with_inputs(config, store)[: settings.rows]
    generator = torch.Generator().manual_seed(settings.seed)
    device = pick_device(config.vae.device if config.vae else "auto")
    denoiser = FrozenDenoiser.from_pipeline(*config.base).to(device)
    layers = _cross_attention(denoiser.model)
    caught: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    batches = [slots[start : start + _BATCH] for start in range(0, len(slots), _BATCH)]
    per_batch = -(-settings.queries_per_layer // len(batches))

    def catch(name: str):
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            flat = output.detach().flatten(0, 1)
            caught[name].append(flat[torch.randperm(len(flat), generator=generator)[:per_batch]].float().cpu())

        return hook

    hooks = [layer.to_q.register_forward_hook(catch(name)) for name, layer in layers.items()]
    latents_name, text_name = _inputs(config)
    has_pooled = "pooled" in store.spec(text_name).arrays
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(settings.seed)
        for index, chosen in enumerate(cycle(batches)):
            if index >= len(batches) and min(sum(map(len, c)) for c in caught.values()) >= settings.queries_per_layer:
                break  # every batch at least once; small layers and few rows need several passes
            latents = store.read(latents_name, chosen)
            mean, logvar = (torch.from_numpy(latents[key][:, 0].astype(np.float32)) for key in ("mean", "logvar"))
            noised = denoiser.noise(mean.to(device), logvar.to(device))
            states = torch.from_numpy(store.read_float32(text_name, chosen, "states"))
            pooled = torch.from_numpy(store.read_float32(text_name, chosen, "pooled")) if has_pooled else None
            denoiser(noised, Text(states.to(device), None if pooled is None else pooled.to(device)))
    for hook in hooks:
        hook.remove()
    values: dict[str, np.ndarray] = {}
    for i, (name, layer) in enumerate(layers.items()):
        queries = torch.cat(caught[name])
        values[f"queries{i:02d}"] = queries[: settings.queries_per_layer].numpy()
        values[f"to_k{i:02d}"] = layer.to_k.weight.detach().float().cpu().numpy()
        values[f"to_v{i:02d}"] = layer.to_v.weight.detach().float().cpu().numpy()
    store.write_asset(spec, values)
    return True


def load_readout(store: Store, config: RunConfig) -> ReadOut:
    """The cached read-out as a module. Raises ConfigError when the store lacks it."""
    name = readout_name(config)
    if name not in store.assets():
        lacking = " and a `vae` section, whose latents it is sampled on" if config.vae is None else ""
        raise ConfigError(f"{store.path} has no {name}; run `sur extract` with this config{lacking} first")
    return stored_readout(store, name)


def stored_readout(store: Store, name: str) -> ReadOut:
    """An asset as a module. Raises UnknownFeature when the store lacks it."""
    values = {key: torch.from_numpy(np.array(value)) for key, value in store.read_asset(name).items()}
    heads = store.assets()[name].identity["heads"]
    columns = ([values[f"{kind}{i:02d}"] for i in range(len(heads))] for kind in ("queries", "to_k", "to_v"))
    return ReadOut(*columns, heads=heads)


def _arrays(layers: dict[str, Any], queries: int) -> dict[str, ArraySpec]:
    arrays = {}
    for i, layer in enumerate(layers.values()):
        inner, dim = layer.to_k.weight.shape
        arrays[f"queries{i:02d}"] = ArraySpec("float32", (queries, inner))
        arrays[f"to_k{i:02d}"] = ArraySpec("float32", (inner, dim))
        arrays[f"to_v{i:02d}"] = ArraySpec("float32", (inner, dim))
    return arrays


def _inputs(config: RunConfig) -> tuple[str, str]:
    if config.vae is None:
        raise ConfigError("the denoiser's read-out is sampled on cached latents; add a `vae` section to the config")
    return config.vae.feature_name, config.text.feature_name("complex")


def _rows_with_inputs(config: RunConfig, store: Store) -> np.ndarray:
    absent: set[int] = set()
    for name in _inputs(config):
        absent |= set(store.missing(name))
    slots = np.array([row.slot for row in store.rows() if row.slot not in absent], dtype=np.int64)
    if len(slots) == 0:
        raise ConfigError(f"no row of {store.path} has both a picture and a complex prompt; the read-out needs some")
    return slots


def _skeleton(folder: Path) -> Any:
    """The denoiser's module tree on the meta device: shapes without weights."""
    from diffusers import UNet2DConditionModel

    family = family_in(folder)
    if family.denoiser != "unet":
        raise ConfigError(
            f"there is no read-out of {family.name}, whose attention does not read the text states as they are; set "
            "loss.alignment.form=denoiser (or tokens), and no distillation form `teacher`"
        )
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(
            dict(UNet2DConditionModel.load_config(folder, subfolder="unet"))  # pyright: ignore
        )
    refuse_other_inputs(unet)
    return unet


def _cross_attention(denoiser: Any) -> dict[str, Any]:
    """Cross-attention layers by name, in the module's order."""
    layers = {name: module for name, module in denoiser.named_modules() if name.endswith("attn2")}
    biased = [name for name, layer in layers.items() if layer.to_k.bias is not None]
    if not layers or biased:
        raise ConfigError(
            "the read-out knows denoisers whose cross-attention layers are named attn2 and have no bias in to_k; "
            f"found {len(layers)} such layers, {len(biased)} with a bias. Use another form of alignment"
        )
    return layers


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
