"""From the cache's batches to the trainer's: which features a loss needs, and their tensors in float32."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sur.adapter.losses.batch import RowBatch
from sur.cache import Batch, Loader, Manifest, Order, Selection, Store
from sur.data.exclude import read_exclude
from sur.support.errors import ConfigError
from sur.training.distributed import joined

if TYPE_CHECKING:
    from sur.config.run import RunConfig


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needs:
    """Names of the cached features that a training reads; None = not needed."""

    simple: str
    complex: str | None
    llm: str | None
    also: tuple[str, ...]  # further LLM features
    latents: str | None
    unpaired: bool  # rows without complex prompt or picture take part
    caption_dropout: float = 0.0  # share of rows that are given the empty prompt

    @property
    def required(self) -> list[str]:
        """Features without which a row is skipped."""
        names = [self.simple, self.llm, *self.also]
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
        also=tuple(sorted(loss.distillation.also)),
        latents=latents,
        unpaired=loss.uses_llm and config.variant == "corrected",
        caption_dropout=loss.denoising.caption_dropout if loss.denoising.weight > 0 else 0.0,
    )


def open_loader(store: Store, config: RunConfig, split: str, manifest: Manifest | None = None) -> Loader:
    """A loader over the rows of the config's data set that its losses can use, or over just those of a manifest.

    Rows of `data.exclude` are left out at once, whether or not they were extracted; a manifest's rows are what it says.
    A batch of split `train` is what this process reads for one step; of others, every process reads the whole.
    """
    wanted = needs(config)
    training = split == "train"
    process, processes = joined(cpu=config.train.device == "cpu")
    dataset = config.data.slug if store.datasets() else None
    if dataset is None:
        _log.warning("%s is from before there were data sets: all of its rows are served", store.path)
    return Loader(
        store,
        wanted.required,
        optional=wanted.optional,
        batch_size=config.train.batch_size * (config.train.accumulate if training else 1),
        selection=Selection(
            dataset=dataset,
            split=split,  # type: ignore[arg-type]
            validation_fraction=config.train.validation_fraction,
            manifest=manifest,
            exclude=read_exclude(config.data.exclude),
        ),
        order=Order(
            seed=config.train.seed,
            rank=process if training else 0,
            world_size=processes if training else 1,
            drop_last=training,
        ),
    )


def row_batches(
    batches: Iterator[Batch],
    wanted: Needs,
    seed: int,
    process: int = 0,
    processes: int = 1,
    empty: Mapping[str, Tensor] | None = None,
) -> Iterator[RowBatch]:
    """Turn the cache's batches into the trainer's.

    What is drawn for a row (a view of its latents, the seed of its noise, whether it is given the empty prompt) is
    drawn from (seed, epoch, offset) for the rows of all processes, and each process takes its share: the number of
    processes makes no difference to a row.

    empty: arrays of the empty prompt, for caption dropout (see `sur.features.empty_prompt`).
    """
    for batch in batches:
        rng = np.random.default_rng([seed, batch.epoch, batch.offset])
        yield row_batch(batch, wanted, rng, process, processes, empty)


def row_batch(
    batch: Batch,
    wanted: Needs,
    rng: np.random.Generator,
    process: int = 0,
    processes: int = 1,
    empty: Mapping[str, Tensor] | None = None,
) -> RowBatch:
    """One batch, float32."""
    share = np.arange(process * len(batch.slots), (process + 1) * len(batch.slots))

    def draw(below: int) -> Tensor:
        return torch.from_numpy(rng.integers(below, size=len(share) * processes)[share])

    arrays, present = batch.arrays, batch.present
    every = torch.ones(len(batch.slots), dtype=torch.bool)
    values: dict = {
        "simple": arrays[f"{wanted.simple}/states"].float(),
        "length": arrays[f"{wanted.simple}/length"].long(),
        **_other_inputs(arrays, wanted.simple),
    }
    if wanted.complex:
        values["complex"] = arrays[f"{wanted.complex}/states"].float()
        values["paired"] = present.get(wanted.complex, every)
        values |= {f"complex_{name}": value for name, value in _other_inputs(arrays, wanted.complex).items()}
    if wanted.llm:
        values["llm"], values["llm_length"] = _llm_states(arrays, wanted.llm)
    if wanted.also:
        further = [_llm_states(arrays, name) for name in wanted.also]
        values["also"], values["also_length"] = zip(*further, strict=True)
    if wanted.latents:
        mean, logvar = (arrays[f"{wanted.latents}/{key}"].float() for key in ("mean", "logvar"))
        view = draw(mean.shape[1])
        rows = torch.arange(len(mean))
        values["latents"] = (mean[rows, view], logvar[rows, view])
        values["pictured"] = present.get(wanted.latents, every)
        values["seeds"] = draw(2**32)
    if wanted.caption_dropout and empty is not None:
        dropped = draw(2**32) < wanted.caption_dropout * 2**32
        for name in ("simple", "length", "pooled", "mask"):
            if name in values:
                values[name] = values[name].clone()
                values[name][dropped] = empty["states" if name == "simple" else name].to(values[name].dtype)
        values["dropped"] = dropped
    return RowBatch(**values)


def _llm_states(arrays: Mapping[str, Tensor], feature: str) -> tuple[Tensor, Tensor]:
    """An LLM's states and their lengths; what lies behind the longest prompt of the batch is padding."""
    states, length = arrays[f"{feature}/states"], arrays[f"{feature}/length"].long()
    return (states[:, : int(length.max())] if states.ndim == 3 else states).float(), length


def _other_inputs(arrays: Mapping[str, Tensor], feature: str) -> dict[str, Tensor]:
    """What a denoiser is told of a prompt beside its states, where the feature has it."""
    kinds = {"pooled": torch.float32, "mask": torch.bool}
    there = {name: arrays.get(f"{feature}/{name}") for name in kinds}
    return {name: value.to(kinds[name]) for name, value in there.items() if value is not None}
