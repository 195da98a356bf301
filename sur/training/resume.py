"""Going on from a checkpoint: what it records of its training, and what a resumed run must share with it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sur.cache import Loader, Store
from sur.config.losses import LossConfig
from sur.config.training import TrainConfig
from sur.features.readout import readout_name
from sur.models.denoiser import denoiser_folder, weights_folder
from sur.models.fingerprint import weights_fingerprint
from sur.support.errors import ConfigError
from sur.training.batches import needed_features
from sur.training.checkpoint import load_checkpoint, read_extra
from sur.training.trainer import Training
from sur.training.validation import Best

if TYPE_CHECKING:
    from sur.config.run import RunConfig

# Settings of `train` that may change between a run and its continuation: they change no number of the training.
FREE_SETTINGS = {
    "save_every", "validate_every", "log_every", "device", "manifest", "patience", "keep_checkpoints", "trackers",
    "sample_every", "sample_prompts", "sample_seeds",
}  # fmt: skip
_log = logging.getLogger(__name__)


def origin_of(store: Store, config: RunConfig, loader: Loader) -> dict[str, Any]:
    """What every checkpoint records of its training: variant, settings, rows, frozen parts, number of processes."""
    return {
        "variant": config.variant,
        "settings": settings_of(config),
        "manifest": loader.manifest.digest,
        "frozen": frozen_parts(store, config),
        "processes": loader.order.world_size,
    }


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that a resumed run must share with the one it resumes, by section."""
    return {
        "adapter": config.adapter.model_dump(),
        "loss": config.loss.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude=FREE_SETTINGS),
    }


def frozen_parts(store: Store, config: RunConfig) -> dict[str, Any]:
    """Identities of the denoiser and the read-out that a run learns from; a resumed run must have the same."""
    loss = config.loss
    return {
        "denoiser": weights_fingerprint(weights_folder(denoiser_folder(*config.base))) if loss.uses_denoiser else None,
        "readout": store.assets()[readout_name(config.text)].identity if loss.uses_readout else None,
    }


def check_settings(store: Store, config: RunConfig) -> None:
    """Refuse settings of the extraction that differ from those with which the stored features were made.

    Raises ConfigError naming section, key and both values. Weights are not compared: the models may be elsewhere.
    """
    features = needed_features(config)
    sections: list[tuple[str, str | None, Any]] = [
        ("text", features.simple, config.text),
        ("text", features.complex, config.text),
        ("llm", features.llm, config.llm),
        ("vae", features.latents, config.vae),
    ]
    specs, assets = store.features(), store.assets()
    compared = [(section, specs[name], settings) for section, name, settings in sections if name in specs]
    if config.loss.uses_readout and readout_name(config.text) in assets:
        compared.append(("readout", assets[readout_name(config.text)], config.readout))
    for section, spec, settings in compared:
        for key, value in settings.model_dump(mode="json", exclude={"model"}).items():
            stored = spec.identity.get(key)  # t5_tokens is in an identity only where it was given
            if (key in spec.identity or key == "t5_tokens") and stored != value:
                raise ConfigError(
                    f"{spec.name} in {store.path} was made with {section}.{key} = {stored!r}, the config says "
                    f"{value!r}; train with the stored value, or extract with the new one under another slug"
                )


def check_variant(checkpoint: Path, variant: str) -> None:
    """Raise ConfigError when the checkpoint is of the other variant."""
    if (saved := read_extra(checkpoint).get("variant", "corrected")) != variant:
        raise ConfigError(
            f"{checkpoint} was trained with variant = {saved}, the config says {variant}; choose another run_dir, or "
            f"remove {checkpoint.parent} to start over"
        )


def resume(checkpoint: Path, training: Training, origin: dict[str, Any]) -> Best | None:
    """Bring the training to the checkpoint's state; returns the best validation so far.

    Raises ConfigError when the checkpoint was trained with other settings, rows, frozen parts or processes than
    `origin` has.
    """
    saved = read_extra(checkpoint)
    _check_same(checkpoint, saved, origin)
    load_checkpoint(checkpoint, training)
    _log.info("resuming %s at step %d of %d", checkpoint, training.step, training.config.steps)
    return Best.from_json(saved.get("best"))


def _check_same(checkpoint: Path, saved: dict[str, Any], origin: dict[str, Any]) -> None:
    for key, subject in (("manifest", "rows or features"), ("frozen", "weights of the denoiser or another read-out")):
        if saved.get(key) != origin[key]:
            raise ConfigError(f"{checkpoint} was trained on other {subject} than there are now; choose another run_dir")
    if (processes := saved.get("processes", 1)) != origin["processes"]:
        raise ConfigError(
            f"{checkpoint} was trained by {processes} processes, now there are {origin['processes']}; start as many as "
            "before, or choose another run_dir"
        )
    before = {**saved["settings"]}
    for section, model in (("loss", LossConfig), ("train", TrainConfig)):  # adds settings newer than the checkpoint
        before[section] = model.model_validate(before[section]).model_dump(mode="json")
    for section, values in origin["settings"].items():
        for key, value in values.items():
            if before[section].get(key) != value:
                raise ConfigError(
                    f"{checkpoint} was trained with {section}.{key} = {before[section].get(key)}, the config says "
                    f"{value}; choose another run_dir, or remove {checkpoint.parent} to start over"
                )
