"""From the cache's batches to the trainer's: the features that the losses need, and their tensors in float32."""

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
class NeededFeatures:
    """Names of the cached features that a training reads; None where it needs none."""

    simple: str
    complex: str | None
    llm: str | None
    also: tuple[str, ...]  # further LLM features
    latents: str | None
    lacking: tuple[str, ...] = ()  # of complex and latents: those that a row may lack, since not every loss reads them

    @property
    def required(self) -> list[str]:
        """Features without which a row is skipped."""
        names = [self.simple, self.llm, *self.also, self.complex, self.latents]
        return [name for name in names if name and name not in self.lacking]

    @property
    def optional(self) -> list[str]:
        """Features that a row may lack."""
        return list(self.lacking)


def needed_features(config: RunConfig) -> NeededFeatures:
    """The cached features that the losses of `config` read.

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
    complex = config.text.feature_name("complex") if aligned else None
    return NeededFeatures(
        simple=config.text.feature_name("simple"),
        complex=complex,
        llm=llm,
        also=tuple(sorted(loss.distillation.also)),
        latents=latents,
        lacking=tuple(
            name for name in (complex, latents) if name and not all(name in read for read in _read_by(config))
        ),
    )


def _read_by(config: RunConfig) -> list[set[str]]:
    """For each loss, those of complex prompts and latents that a row must have to enter it."""
    loss = config.loss
    complex = {config.text.feature_name("complex")}
    latents = {config.vae.feature_name} if config.vae is not None else set()
    if config.variant == "released":  # its losses take all rows of a batch
        return [complex | latents]
    needs: list[set[str]] = []
    if loss.alignment.form != "none" and loss.alignment.weight > 0:
        needs.append(complex | latents if loss.alignment.form == "denoiser" else complex)
    if loss.denoising.weight > 0:
        needs.append(latents)
    if loss.uses_llm:
        needs.append(set())
    return needs


def open_loader(store: Store, config: RunConfig, split: str, manifest: Manifest | None = None) -> Loader:
    """A loader over the rows of the config's data set that its losses can use, or over the rows of a manifest.

    Rows of `data.exclude` are left out, whether or not they were extracted; a manifest is taken as it is.
    A batch of split `train` is this process's part of one step; of other splits every process reads whole batches.
    """
    features = needed_features(config)
    training = split == "train"
    process, processes = joined(cpu=config.train.device == "cpu")
    dataset = config.data.slug if store.datasets() else None
    if dataset is None:
        _log.warning("%s is from before there were data sets: all of its rows are served", store.path)
    return Loader(
        store,
        features.required,
        optional=features.optional,
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
    features: NeededFeatures,
    seed: int,
    process: int = 0,
    processes: int = 1,
) -> Iterator[RowBatch]:
    """The trainer's batches, one for each of the cache's.

    Each row's random choices (a view of its latents, the seed of its noise) are drawn from (seed, epoch, offset) for
    the rows of all processes, and each process takes its share: the number of processes makes no difference to a row.
    """
    for batch in batches:
        rng = np.random.default_rng([seed, batch.epoch, batch.offset])
        yield row_batch(batch, features, rng, process, processes)


def row_batch(
    batch: Batch,
    features: NeededFeatures,
    rng: np.random.Generator,
    process: int = 0,
    processes: int = 1,
) -> RowBatch:
    """One batch of the cache as one of the trainer, float32; see `row_batches`."""
    share = np.arange(process * len(batch.slots), (process + 1) * len(batch.slots))

    def draw(below: int) -> Tensor:
        return torch.from_numpy(rng.integers(below, size=len(share) * processes)[share])

    arrays, present = batch.arrays, batch.present
    every = torch.ones(len(batch.slots), dtype=torch.bool)
    values: dict = {
        "simple": arrays[f"{features.simple}/states"].float(),
        "length": arrays[f"{features.simple}/length"].long(),
        **_other_inputs(arrays, features.simple),
    }
    if features.complex:
        values["complex"] = arrays[f"{features.complex}/states"].float()
        values["paired"] = present.get(features.complex, every)
        values |= {f"complex_{name}": value for name, value in _other_inputs(arrays, features.complex).items()}
    if features.llm:
        values["llm"], values["llm_length"] = _llm_states(arrays, features.llm)
    if features.also:
        further = [_llm_states(arrays, name) for name in features.also]
        values["also"], values["also_length"] = zip(*further, strict=True)
    if features.latents:
        mean, logvar = (arrays[f"{features.latents}/{key}"].float() for key in ("mean", "logvar"))
        view = draw(mean.shape[1])
        rows = torch.arange(len(mean))
        values["latents"] = (mean[rows, view], logvar[rows, view])
        values["pictured"] = present.get(features.latents, every)
        values["seeds"] = draw(2**32)
    return RowBatch(**values)


def _llm_states(arrays: Mapping[str, Tensor], feature: str) -> tuple[Tensor, Tensor]:
    """An LLM's states, cut behind the longest prompt of the batch, and their lengths."""
    states, length = arrays[f"{feature}/states"], arrays[f"{feature}/length"].long()
    return (states[:, : int(length.max())] if states.ndim == 3 else states).float(), length


def _other_inputs(arrays: Mapping[str, Tensor], feature: str) -> dict[str, Tensor]:
    """The denoiser's inputs beside a prompt's states: pooled vector and mask, where the feature has them."""
    dtypes = {"pooled": torch.float32, "mask": torch.bool}
    stored = {name: arrays.get(f"{feature}/{name}") for name in dtypes}
    return {name: value.to(dtypes[name]) for name, value in stored.items() if value is not None}
