"""From the cache's batches to the trainer's: which features a loss needs, and their tensors in float32."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cache import Batch, Loader, Manifest, Store, bfloat16_to_float32
from sur.errors import ConfigError
from sur.losses import RowBatch

if TYPE_CHECKING:
    from sur.config import RunConfig


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needs:
    """Names of the cached features that a training reads; None = not needed."""

    simple: str
    complex: str | None
    llm: str | None
    latents: str | None
    unpaired: bool  # rows without complex prompt or picture take part

    @property
    def required(self) -> list[str]:
        """Features without which a row is skipped."""
        names = [self.simple, self.llm]
        return [n for n in (names if self.unpaired else [*names, self.complex, self.latents]) if n]

    @property
    def optional(self) -> list[str]:
        """Features that a row may lack."""
        return [n for n in (self.complex, self.latents) if n] if self.unpaired else []


def needs(config: RunConfig) -> Needs:
    """What the losses of `config` read.

    Raises ConfigError when a loss needs a feature that the config does not extract.
    """
    loss = config.loss
    llm = None
    if loss.uses_llm:
        if config.llm is None:
            raise ConfigError("loss.distillation is on, but the config has no `llm` section; add one, or set form=none")
        layer = loss.distillation.layer if loss.distillation.layer is not None else config.llm.layers[-1]
        if layer not in config.llm.layers:
            raise ConfigError(f"loss.distillation.layer is {layer}, but llm.layers has only {list(config.llm.layers)}")
        llm = config.llm.feature_name(layer)
    latents = None
    if loss.uses_denoiser:
        if config.vae is None:
            raise ConfigError("the denoiser's losses need latents, but the config has no `vae` section; add one")
        latents = config.vae.feature_name
    aligned = loss.alignment.form != "none" or loss.distillation.form == "teacher"
    return Needs(
        simple=config.text.feature_name("simple"),
        complex=config.text.feature_name("complex") if aligned else None,
        llm=llm,
        latents=latents,
        unpaired=loss.uses_llm and config.variant == "corrected",
    )


def open_loader(store: Store, config: RunConfig, split: str, manifest: Manifest | None = None) -> Loader:
    """A loader over the rows of the config's data set that its losses can use, or over just those of a manifest."""
    wanted = needs(config)
    dataset = config.data.slug if store.datasets() else None
    if dataset is None:
        _log.warning("%s is from before there were data sets: all of its rows are served", store.path)
    return Loader(
        store,
        wanted.required,
        optional=wanted.optional,
        dataset=dataset,
        manifest=manifest,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        split=split,  # type: ignore[arg-type]
        validation_fraction=config.train.validation_fraction,
        drop_last=split == "train",
    )


def read_states(store: Store, feature: str, slots: np.ndarray) -> Float[Tensor, "rows ..."]:
    """Cached states of some slots, float32."""
    values = store.read(feature, slots)["states"]
    if store.spec(feature).arrays["states"].dtype == "bfloat16":
        return torch.from_numpy(bfloat16_to_float32(values))
    return torch.from_numpy(values.astype(np.float32))


def row_batches(batches: Iterator[Batch], wanted: Needs, seed: int) -> Iterator[RowBatch]:
    """Turn the cache's batches into the trainer's; a view (flip) of each latent is drawn from (seed, epoch, offset)."""
    for batch in batches:
        yield row_batch(batch, wanted, np.random.default_rng([seed, batch.epoch, batch.offset]))


def row_batch(batch: Batch, wanted: Needs, rng: np.random.Generator) -> RowBatch:
    """One batch, float32."""
    arrays, present = batch.arrays, batch.present
    every = torch.ones(len(batch.slots), dtype=torch.bool)
    values: dict = {
        "simple": arrays[f"{wanted.simple}/states"].float(),
        "length": arrays[f"{wanted.simple}/length"].long(),
    }
    if wanted.complex:
        values["complex"] = arrays[f"{wanted.complex}/states"].float()
        values["paired"] = present.get(wanted.complex, every)
    if wanted.llm:
        states, length = arrays[f"{wanted.llm}/states"], arrays[f"{wanted.llm}/length"].long()
        longest = int(length.max())  # what lies behind the longest prompt of the batch is padding
        values["llm"] = (states[:, :longest] if states.ndim == 3 else states).float()
        values["llm_length"] = length
    if wanted.latents:
        mean, logvar = (arrays[f"{wanted.latents}/{key}"].float() for key in ("mean", "logvar"))
        view = torch.from_numpy(rng.integers(mean.shape[1], size=len(mean)))
        rows = torch.arange(len(mean))
        values["latents"] = (mean[rows, view], logvar[rows, view])
        values["pictured"] = present.get(wanted.latents, every)
    return RowBatch(**values)
