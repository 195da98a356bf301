"""The denoiser's read-out: a sample of the queries of its cross-attention layers, cached once.

Each cross-attention layer has a sample of its real queries, over pictures and timesteps under the complex prompt, and
its `to_k` and `to_v`. With them, training computes what the denoiser would read out of two sets of text states and
compares both without loading the denoiser (`sur.adapter.losses.alignment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sur.cache import ArraySpec, FeatureSpec, Store
from sur.config.features import ReadoutConfig, TextConfig, VAEConfig
from sur.config.losses import LossConfig
from sur.models.denoiser import FrozenDenoiser, Text, denoiser_folder, refuse_other_inputs, weights_folder
from sur.models.families import family_in
from sur.models.fingerprint import weights_fingerprint
from sur.models.libraries import major_version, pick_device
from sur.models.locate import PIPELINE_CONFIG, locate
from sur.models.readout import ReadOut
from sur.support.errors import ConfigError

ENCODER_VERSION = 1
_BATCH = 32


def needs_readout(loss: LossConfig, vae: VAEConfig | None) -> bool:
    """Whether a loss needs the denoiser's read-out and there are latents to sample it on."""
    return loss.uses_readout and vae is not None


def readout_name(text: TextConfig) -> str:
    """Name of the asset in the store."""
    return f"readout.{text.name}"


def readout_spec(
    features: Mapping[str, FeatureSpec],
    base: tuple[str, str | None],
    text: TextConfig,
    vae: VAEConfig | None,
    sampling: ReadoutConfig,
) -> FeatureSpec:
    """Arrays and identity of the asset; reads the denoiser's config and shapes, not its weights.

    features: specs by name, those of the latents and complex prompts among them. base: the pipeline and its revision.
    Raises ConfigError for a denoiser that has no read-out, or without `vae`.
    """
    folder = denoiser_folder(*base)
    layers = _cross_attention(_skeleton(folder))
    inputs = _input_features(text, vae)
    identity = {
        "denoiser": weights_fingerprint(weights_folder(folder)),
        "layers": list(layers),
        "heads": [layer.heads for layer in layers.values()],
        "inputs": {name: features[name].identity for name in inputs if name in features},
        **sampling.model_dump(),
        "diffusers": major_version("diffusers"),
        "encoder_version": ENCODER_VERSION,
    }
    return FeatureSpec(readout_name(text), "readout", identity, _arrays(layers, sampling.queries_per_layer))


def readout_arrays(base: tuple[str, str | None], sampling: ReadoutConfig) -> dict[str, ArraySpec]:
    """Arrays of the asset, from the denoiser's config alone (its weights need not be on this machine)."""
    folder = locate(*base, needed=PIPELINE_CONFIG).folder
    return _arrays(_cross_attention(_skeleton(folder)), sampling.queries_per_layer)


def compute_readout(
    store: Store, base: tuple[str, str | None], text: TextConfig, vae: VAEConfig | None, sampling: ReadoutConfig
) -> bool:
    """Run the denoiser on cached latents and write the asset; False when it was stored already.

    Needs the VAE's and the complex prompts' features. Raises ConfigError when no row has both.
    """
    spec = readout_spec(store.features(), base, text, vae, sampling)
    if store.has_asset(spec):
        return False
    inputs = _input_features(text, vae)
    slots = _rows_with_inputs(store, inputs)[: sampling.rows]
    denoiser = FrozenDenoiser.from_pipeline(*base).to(pick_device(vae.device if vae else "auto"))
    layers = _cross_attention(denoiser.model)
    queries = _sample_queries(store, denoiser, layers, inputs, slots, sampling)
    values: dict[str, np.ndarray] = {}
    for i, (name, layer) in enumerate(layers.items()):
        values[f"queries{i:02d}"] = torch.cat(queries[name])[: sampling.queries_per_layer].numpy()
        values[f"to_k{i:02d}"] = layer.to_k.weight.detach().float().cpu().numpy()
        values[f"to_v{i:02d}"] = layer.to_v.weight.detach().float().cpu().numpy()
    store.write_asset(spec, values)
    return True


def load_readout(store: Store, text: TextConfig, vae: VAEConfig | None) -> ReadOut:
    """The cached read-out as a module. Raises ConfigError when the store lacks it."""
    name = readout_name(text)
    if name not in store.assets():
        lacking = " and a `vae` section, whose latents it is sampled on" if vae is None else ""
        raise ConfigError(f"{store.path} has no {name}; run `sur extract` with this config{lacking} first")
    return stored_readout(store, name)


def stored_readout(store: Store, name: str) -> ReadOut:
    """A read-out by its name in the store, as a module. Raises UnknownFeature when the store lacks it."""
    values = {key: torch.from_numpy(np.array(value)) for key, value in store.read_asset(name).items()}
    heads = store.assets()[name].identity["heads"]
    columns = ([values[f"{kind}{i:02d}"] for i in range(len(heads))] for kind in ("queries", "to_k", "to_v"))
    return ReadOut(*columns, heads=heads)


def _sample_queries(
    store: Store,
    denoiser: FrozenDenoiser,
    layers: Mapping[str, Any],
    inputs: tuple[str, str],
    slots: np.ndarray,
    sampling: ReadoutConfig,
) -> dict[str, list[Tensor]]:
    """At least `queries_per_layer` queries of each layer, in parts of (queries, inner) for each batch of rows."""
    batches = [slots[start : start + _BATCH] for start in range(0, len(slots), _BATCH)]
    generator = torch.Generator().manual_seed(sampling.seed)
    latents_name, text_name = inputs
    has_pooled = "pooled" in store.spec(text_name).arrays
    device = next(denoiser.model.parameters()).device
    per_batch = -(-sampling.queries_per_layer // len(batches))
    with _queries_caught(layers, per_batch, generator) as caught, torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(sampling.seed)
        for index, chosen in enumerate(cycle(batches)):
            if index >= len(batches) and min(sum(map(len, c)) for c in caught.values()) >= sampling.queries_per_layer:
                break  # every batch at least once; small layers and few rows need several passes
            latents = store.read(latents_name, chosen)
            mean, logvar = (torch.from_numpy(latents[key][:, 0].astype(np.float32)) for key in ("mean", "logvar"))
            noised = denoiser.noise(mean.to(device), logvar.to(device))
            states = torch.from_numpy(store.read_float32(text_name, chosen, "states"))
            pooled = torch.from_numpy(store.read_float32(text_name, chosen, "pooled")) if has_pooled else None
            denoiser(noised, Text(states.to(device), None if pooled is None else pooled.to(device)))
    return caught


@contextmanager
def _queries_caught(
    layers: Mapping[str, Any], per_pass: int, generator: torch.Generator
) -> Iterator[dict[str, list[Tensor]]]:
    """While the block runs, a random `per_pass` of the queries of every forward pass are added to each layer's list."""
    caught: dict[str, list[Tensor]] = {name: [] for name in layers}

    def catch(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
            flat = output.detach().flatten(0, 1)
            caught[name].append(flat[torch.randperm(len(flat), generator=generator)[:per_pass]].float().cpu())

        return hook

    hooks = [layer.to_q.register_forward_hook(catch(name)) for name, layer in layers.items()]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def _arrays(layers: Mapping[str, Any], queries: int) -> dict[str, ArraySpec]:
    """Arrays of the asset, numbered in the order of the layers."""
    arrays = {}
    for i, layer in enumerate(layers.values()):
        inner, dim = layer.to_k.weight.shape
        arrays[f"queries{i:02d}"] = ArraySpec("float32", (queries, inner))
        arrays[f"to_k{i:02d}"] = ArraySpec("float32", (inner, dim))
        arrays[f"to_v{i:02d}"] = ArraySpec("float32", (inner, dim))
    return arrays


def _input_features(text: TextConfig, vae: VAEConfig | None) -> tuple[str, str]:
    """Names of the features that the denoiser is run on: latents, states of the complex prompts."""
    if vae is None:
        raise ConfigError("the denoiser's read-out is sampled on cached latents; add a `vae` section to the config")
    return vae.feature_name, text.feature_name("complex")


def _rows_with_inputs(store: Store, inputs: tuple[str, str]) -> np.ndarray:
    """Slots of the rows that have both inputs, int64 (n,)."""
    absent: set[int] = set()
    for name in inputs:
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
    refuse_other_inputs(unet.config)
    _refuse_other_attention(unet.config)
    return unet


def _refuse_other_attention(config: Mapping[str, Any]) -> None:
    """Refuse a UNet, by its config, whose cross-attention does not read the text states as they are.

    Raises ConfigError naming the setting.
    """
    others = [
        f"{key} = {config[key]!r}"
        for key in ("encoder_hid_dim_type", "cross_attention_norm", "only_cross_attention", "dual_cross_attention")
        if (any(config[key]) if isinstance(config.get(key), list | tuple) else config.get(key))
    ]
    if others:
        raise ConfigError(
            f"there is no read-out of this denoiser, which changes the text states before attention reads them, or "
            f"reads them elsewhere too ({', '.join(others)}); set loss.alignment.form=denoiser (or tokens), and no "
            "distillation form `teacher`"
        )


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
