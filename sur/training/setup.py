"""What a training starts with: its rows, and an adapter, objective and optimiser freshly initialised."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from sur.adapter.adapter import Adapter
from sur.adapter.losses import Objective, prepare_denoiser
from sur.adapter.released.adapter import ReleasedAdapter, ReleasedAdapterConfig
from sur.adapter.released.objective import ReleasedObjective
from sur.cache import FeatureSpec, Loader, Manifest, Store
from sur.config.run_folder import RunFolder
from sur.config.training import TrainConfig
from sur.features.readout import load_readout
from sur.models.families import family_of
from sur.support.errors import ConfigError
from sur.training.batches import NeededFeatures, needed_features, open_loader
from sur.training.tracking.curves import Curves
from sur.training.tracking.sample_grids import Sampler
from sur.training.trainer import Training
from sur.training.validation import Best

if TYPE_CHECKING:
    from sur.config.losses import LossConfig
    from sur.config.run import RunConfig

_log = logging.getLogger(__name__)


@dataclass
class Run:
    """A training with everything it reads and writes.

    validation: the loader of the held-back rows. origin: what every checkpoint records of the training's settings,
    rows and frozen parts. sampler: None without sample grids, and in all processes but the first. best: the best
    validation so far; None without patience.
    """

    folder: RunFolder
    training: Training
    loader: Loader
    validation: Loader | None
    features: NeededFeatures
    origin: dict[str, Any]
    curves: Curves
    sampler: Sampler | None
    best: Best | None

    @property
    def settings(self) -> TrainConfig:
        """The settings of the training."""
        return self.training.config

    @property
    def is_last_step(self) -> bool:
        """Whether all steps are done."""
        return self.training.step >= self.settings.steps

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or patience is at its end."""
        return self.is_last_step or (self.best is not None and 0 < self.settings.patience <= self.best.since)


def read_manifest(folder: RunFolder, settings: TrainConfig, resuming: bool) -> Manifest | None:
    """The rows that a resumed run began with, else those that the settings name; None means the data set's."""
    if resuming and folder.manifest.exists():
        return Manifest.load(folder.manifest)
    return None if settings.manifest is None else Manifest.load(settings.manifest)


def warn_of_an_idle_teacher(store: Store, config: RunConfig) -> None:
    """Warn when distillation of form `teacher` adds nothing, or less than it could."""
    if config.loss.distillation.form != "teacher":
        return
    if not store.missing(config.text.feature_name("complex")):
        _log.warning("every row has a complex prompt: a teacher teaches only rows without one, so the LLM adds nothing")
    if config.llm is not None and config.llm.pooling != "tokens":
        _log.warning("a teacher learns less from pooled vectors than from llm.pooling=tokens (docs/probe.md)")


def warn_of_cut_prompts(store: Store, config: RunConfig) -> None:
    """Warn when distillation of form `tokens` leaves out prompts that were cut when they were encoded."""
    if config.loss.distillation.form != "tokens":
        return
    features = needed_features(config)
    for name in (features.simple, features.llm, *features.also):
        receipts = [] if name is None else [r for r in store.receipts(name) if r is not None]
        if cut := sum(receipt.stats.get("truncated", 0) for receipt in receipts):
            limit = "no longer prompt fits the text encoder" if name == features.simple else "raise llm.max_tokens"
            _log.warning(
                "%s: %d prompts lost their end, so their tokens have no counterpart: distillation of form tokens "
                "leaves them out (%s)", name, cut, limit,
            )  # fmt: skip


def build_training(store: Store, config: RunConfig, slots: np.ndarray | None = None) -> Training:
    """Adapter, objective and optimiser for a config, freshly initialised from its seed and the states at `slots`.

    Raises ConfigError when the store lacks a feature that the losses read, or a feature does not suit them.
    """
    features = needed_features(config)
    specs = store.features()
    _check_features(store, specs, features, config.variant)
    dim = specs[features.simple].arrays["states"].shape[-1]
    torch.manual_seed(config.train.seed)
    trained_on = _trained_on(specs, features, config.loss)
    llm_shape = specs[features.llm].arrays["states"].shape if features.llm else None
    if isinstance(config.adapter, ReleasedAdapterConfig):
        adapter = ReleasedAdapter(config.adapter.model_copy(update={"dim": dim}), trained_on=trained_on)
        denoiser = prepare_denoiser(*config.base, config.loss.denoising) if config.loss.uses_denoiser else None
        return Training(adapter, ReleasedObjective(config.loss, dim, llm_shape, denoiser), config.train)
    adapter = Adapter(config.adapter.model_copy(update={"dim": dim}), trained_on=trained_on)
    slots = open_loader(store, config, "train").manifest_slots if slots is None else slots
    adapter.whiten(sample_states(store, features.simple, slots))
    objective = Objective(
        config.loss,
        dim,
        llm_shape=llm_shape,
        read_out=load_readout(store, config.text, config.vae) if config.loss.uses_readout else None,
        denoiser=prepare_denoiser(*config.base, config.loss.denoising) if config.loss.uses_denoiser else None,
        also_shapes=[specs[name].arrays["states"].shape for name in features.also],
        start_marks=int(family_of(specs[features.simple].identity["pipeline"]).clip_first),
        text_limit=counted_tokens(specs[features.simple]),
    )
    if objective.teacher is not None and objective.teacher.pooled and features.llm is not None:
        objective.teacher.standardise(sample_states(store, features.llm, slots, rows=2048))
    return Training(adapter, objective, config.train)


def sample_states(store: Store, feature: str, slots: np.ndarray, rows: int = 512) -> Float[torch.Tensor, "n dim"]:
    """Token states, or pooled vectors, of up to `rows` rows spread evenly over `slots`, float32."""
    chosen = slots[np.unique(np.linspace(0, len(slots) - 1, min(rows, len(slots))).astype(np.int64))]
    return torch.from_numpy(store.read_float32(feature, chosen, "states")).flatten(0, -2)


def _check_features(store: Store, specs: Mapping[str, FeatureSpec], features: NeededFeatures, variant: str) -> None:
    """Raise ConfigError when a feature is not stored, or is not of the kind that the losses need."""
    for name in features.required:
        if name not in specs:
            raise ConfigError(f"{store.path} has no feature {name}; run `sur extract` with this config first")
    for name in features.also:
        if specs[name].kind != "llm":
            raise ConfigError(
                f"loss.distillation.also names {name}, which holds no LLM's states but {specs[name].kind}"
            )
    if variant == "released" and "mask" in specs[features.simple].arrays:
        raise ConfigError("variant released knows no masks, which this pipeline's text states have; use corrected")


def counted_tokens(spec: FeatureSpec) -> int:
    """Most real tokens that a text feature's `length` counts of a prompt."""
    family, tokens = family_of(spec.identity["pipeline"]), spec.arrays["states"].shape[0]
    if family.clip_first and family.t5_tokens:  # CLIP's states come first, T5's behind them
        return tokens - spec.identity.get("t5_tokens", family.t5_tokens)
    return tokens


def _trained_on(specs: Mapping[str, FeatureSpec], features: NeededFeatures, loss: LossConfig) -> dict[str, Any]:
    """What an adapter's file says of its training: identities of the features, and the losses."""
    names = [features.simple, features.complex, features.llm, *features.also, features.latents]
    return {
        "text": specs[features.simple].identity,
        "features": {name: specs[name].identity for name in names if name in specs},
        "loss": loss.model_dump(mode="json"),
    }
