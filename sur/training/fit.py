"""One training run from a config: loader, resume, validation, checkpoints, curves."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from sur.adapter.adapter import Adapter
from sur.adapter.losses import Objective, prepare_denoiser
from sur.adapter.released.adapter import ReleasedAdapter, ReleasedAdapterConfig
from sur.adapter.released.objective import ReleasedObjective
from sur.cache import Loader, Manifest, NoRows, Store
from sur.config.losses import LossConfig
from sur.config.run_folder import RunFolder
from sur.config.training import TrainConfig
from sur.features.empty_prompt import load_empty_prompt
from sur.features.readout import load_readout, readout_name
from sur.models.denoiser import denoiser_folder, weights_folder
from sur.models.families import family_of
from sur.models.fingerprint import weights_fingerprint
from sur.support.errors import ConfigError
from sur.support.signals import Stopped
from sur.training.batches import needs, open_loader, row_batches
from sur.training.checkpoint import (
    load_checkpoint,
    prune_checkpoints,
    read_extra,
    save_checkpoint,
)
from sur.training.distributed import as_first, in_any, together, wait_for_everyone
from sur.training.tracking.curves import CURVES, Curves, start_trackers
from sur.training.tracking.sample_grids import Sampler
from sur.training.trainer import Step, Training
from sur.training.validation import Best, better

if TYPE_CHECKING:
    from sur.config.run import RunConfig

MANIFEST = "manifest.safetensors"
_log = logging.getLogger(__name__)


@together()
def fit(config: RunConfig, on_step: Callable[[Step], None] | None = None) -> Path:
    """Train as `config` says, going on from the run's newest checkpoint; returns <run_dir>/adapter.

    Ctrl-C and SIGTERM save a checkpoint once the step under way is done. Started by `accelerate launch` or torchrun,
    the processes train together, and the first alone writes. Raises Stopped on a signal, ConfigError when the
    newest checkpoint belongs to other settings or other rows, IncompleteFeature when the store lacks what the losses
    read.
    """
    store = Store.open(config.store.path)
    check_settings(store, config)
    newest = RunFolder(config.run_dir).latest_checkpoint()
    if newest is not None:
        _check_variant(newest, config)
    manifest = read_manifest(config, resuming=newest is not None)
    loader = open_loader(store, config, "train", manifest)
    held_back = open_validation(store, config, manifest)
    if config.loss.distillation.form == "teacher" and not store.missing(config.text.feature_name("complex")):
        _log.warning("every row has a complex prompt: a teacher teaches only rows without one, so the LLM adds nothing")
    if config.loss.distillation.form == "teacher" and config.llm is not None and config.llm.pooling != "tokens":
        _log.warning("a teacher learns less from pooled vectors than from llm.pooling=tokens (docs/probe.md)")
    training = build_training(store, config, loader.manifest_slots)
    best = None
    extra = {
        "variant": config.variant,
        "settings": settings_of(config),
        "manifest": loader.manifest.digest,
        "frozen": frozen_parts(store, config),
        "processes": loader.order.world_size,
    }
    if newest is not None:
        saved = read_extra(newest)
        _check_same(newest, saved, extra)
        load_checkpoint(newest, training)
        best = Best.from_json(saved.get("best"))
        _log.info("resuming %s at step %d of %d", newest, training.step, config.train.steps)
    elif training.accelerator.is_main_process:
        loader.manifest.save(config.run_dir / MANIFEST)
    if newest is None or not (training.step >= config.train.steps or _given_up(best, config)):
        best = _train(config, training, loader, held_back, extra, best, on_step)
    return _publish(training, config, best)


def _train(
    config: RunConfig,
    training: Training,
    loader: Loader,
    held_back: Loader | None,
    extra: dict[str, Any],
    best: Best | None,
    on_step: Callable[[Step], None] | None,
) -> Best | None:
    """Train from where `training` stands to the end; returns the best validation, with patience."""
    settings, main = config.train, training.accelerator.is_main_process
    start_trackers(
        training.accelerator, settings.trackers, config.run_dir / "trackers", extra["settings"], training.step
    )
    sampler = Sampler(config) if settings.sample_every and main else None
    batches = loader.forever(*divmod(training.step, loader.batches_per_epoch))
    wanted = needs(config)
    empty = load_empty_prompt(Store.open(config.store.path), config.text) if wanted.caption_dropout else None
    rows = row_batches(batches, wanted, settings.seed, loader.order.rank, loader.order.world_size, empty)
    with Curves(config.run_dir / CURVES, training.step, training.accelerator) as curves, _stop_on_signals() as signals:
        for step in training.run(rows):
            if on_step is not None:
                on_step(step)
            record: dict[str, Any] = {"step": step.step}
            if _due(step.step, settings.log_every) or step.step == 1:
                record |= {"learning_rate": step.learning_rate, "train": step.losses}
            last = step.step == settings.steps
            if held_back and settings.validate_every and (last or _due(step.step, settings.validate_every)):
                record["validation"] = as_first(validate(held_back, config, training))
                if settings.patience:
                    best = better(best, step.step, record["validation"])
            if len(record) > 1:
                curves.write(record)
            if sampler is not None and _due(step.step, settings.sample_every):
                sampler.draw(training.published, step.step)
            stop, ended = in_any(bool(signals)), last or _given_up(best, config)
            improved = best is not None and best.step == step.step
            if main and (stop or ended or improved or _due(step.step, settings.save_every)):
                curves.flush()
                _save(config, training, extra, best)
            if stop:
                kept = RunFolder(config.run_dir).checkpoint(step.step)
                number = signals[0] if signals else signal.SIGTERM  # another process may have heard it
                raise Stopped(number, f"stopped at step {step.step}; run again to go on from {kept}")
            if ended:
                break
    return best


def _save(config: RunConfig, training: Training, extra: dict[str, Any], best: Best | None) -> None:
    """Write a checkpoint, and remove those that need not be kept."""
    folder = config.run_dir / "checkpoints"
    save_checkpoint(folder, training, extra | {"best": best and best.as_json()})
    prune_checkpoints(folder, config.train.keep_checkpoints, best and best.step)


def read_manifest(config: RunConfig, resuming: bool) -> Manifest | None:
    """The rows to train on: those that the config names, or with which the resumed run began; None = the data set's."""
    own = config.run_dir / MANIFEST
    if resuming and own.exists():
        return Manifest.load(own)
    return None if config.train.manifest is None else Manifest.load(config.train.manifest)


def build_training(store: Store, config: RunConfig, slots: np.ndarray | None = None) -> Training:
    """Adapter, objective and optimiser for a config, freshly initialised from its seed and the states at `slots`."""
    wanted = needs(config)
    specs = store.features()
    for name in wanted.required:
        if name not in specs:
            raise ConfigError(f"{store.path} has no feature {name}; run `sur extract` with this config first")
    for name in wanted.also:
        if specs[name].kind != "llm":
            raise ConfigError(
                f"loss.distillation.also names {name}, which holds no LLM's states but {specs[name].kind}"
            )
    if config.variant == "released" and "mask" in specs[wanted.simple].arrays:
        raise ConfigError("variant released knows no masks, which this pipeline's text states have; use corrected")
    dim = specs[wanted.simple].arrays["states"].shape[-1]
    torch.manual_seed(config.train.seed)
    read = [wanted.simple, wanted.complex, wanted.llm, *wanted.also, wanted.latents]
    trained_on = {
        "text": specs[wanted.simple].identity,
        "features": {name: specs[name].identity for name in read if name in specs},
        "loss": config.loss.model_dump(mode="json"),
    }
    llm_shape = specs[wanted.llm].arrays["states"].shape if wanted.llm else None
    if isinstance(config.adapter, ReleasedAdapterConfig):
        adapter = ReleasedAdapter(config.adapter.model_copy(update={"dim": dim}), trained_on=trained_on)
        denoiser = prepare_denoiser(*config.base, config.loss.denoising) if config.loss.uses_denoiser else None
        return Training(adapter, ReleasedObjective(config.loss, dim, llm_shape, denoiser), config.train)
    adapter = Adapter(config.adapter.model_copy(update={"dim": dim}), trained_on=trained_on)
    slots = open_loader(store, config, "train").manifest_slots if slots is None else slots
    adapter.whiten(sample_states(store, wanted.simple, slots))
    objective = Objective(
        config.loss,
        dim,
        llm_shape=llm_shape,
        read_out=load_readout(store, config.text, config.vae) if config.loss.uses_readout else None,
        denoiser=prepare_denoiser(*config.base, config.loss.denoising) if config.loss.uses_denoiser else None,
        also_dims=[specs[name].arrays["states"].shape[-1] for name in wanted.also],
        start_marks=int(family_of(specs[wanted.simple].identity["pipeline"]).clip_first),
    )
    if objective.teacher is not None and objective.teacher.pooled and wanted.llm is not None:
        objective.teacher.standardise(sample_states(store, wanted.llm, slots, rows=2048))
    return Training(adapter, objective, config.train)


def sample_states(store: Store, feature: str, slots: np.ndarray, rows: int = 512) -> Float[torch.Tensor, "n dim"]:
    """Token states, or pooled vectors, of up to `rows` rows spread evenly over `slots`, float32."""
    chosen = slots[np.unique(np.linspace(0, len(slots) - 1, min(rows, len(slots))).astype(np.int64))]
    return torch.from_numpy(store.read_float32(feature, chosen, "states")).flatten(0, -2)


def open_validation(store: Store, config: RunConfig, manifest: Manifest | None) -> Loader | None:
    """The loader of the held-back rows; None, said in the log, when there are none."""
    if config.train.validation_fraction == 0:
        return None
    try:
        return open_loader(store, config, "validation", manifest)
    except NoRows as error:
        _log.warning("training without validation: %s", error)
        return None


def validate(loader: Loader, config: RunConfig, training: Training) -> dict[str, float]:
    """Losses on held-back rows."""
    batches = islice(loader.batches(0), config.train.validation_batches)
    return training.validate(row_batches(batches, needs(config), config.train.seed))


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that a resumed run must share with the one it resumes."""
    free = {"save_every", "validate_every", "log_every", "device", "manifest", "patience", "keep_checkpoints"}
    free |= {"trackers", "sample_every", "sample_prompts", "sample_seeds"}
    train = config.train.model_dump(mode="json", exclude=free)
    return {
        "adapter": config.adapter.model_dump(),
        "loss": config.loss.model_dump(mode="json"),
        "train": train,
    }


def frozen_parts(store: Store, config: RunConfig) -> dict[str, Any]:
    """Which denoiser and read-out a run learns from; a resumed run must have the same."""
    loss = config.loss
    return {
        "denoiser": weights_fingerprint(weights_folder(denoiser_folder(*config.base))) if loss.uses_denoiser else None,
        "readout": store.assets()[readout_name(config.text)].identity if loss.uses_readout else None,
    }


def check_settings(store: Store, config: RunConfig) -> None:
    """Refuse settings of the extraction that are not those with which the stored features were made.

    Raises ConfigError naming section, key and both values. Weights are not looked at: no model need be here.
    """
    wanted = needs(config)
    sections: list[tuple[str, str | None, Any]] = [
        ("text", wanted.simple, config.text),
        ("text", wanted.complex, config.text),
        ("llm", wanted.llm, config.llm),
        ("vae", wanted.latents, config.vae),
    ]
    stored = store.features()
    made = [(section, stored[name], model) for section, name, model in sections if name in stored]
    if config.loss.uses_readout and readout_name(config.text) in store.assets():
        made.append(("readout", store.assets()[readout_name(config.text)], config.readout))
    for section, spec, model in made:
        for key, value in model.model_dump(mode="json", exclude={"model"}).items():
            stored = spec.identity.get(key)  # t5_tokens is in an identity only where it was given
            if (key in spec.identity or key == "t5_tokens") and stored != value:
                raise ConfigError(
                    f"{spec.name} in {store.path} was made with {section}.{key} = {stored!r}, the config says "
                    f"{value!r}; train with the stored value, or extract with the new one under another slug"
                )


def _publish(training: Training, config: RunConfig, best: Best | None) -> Path:
    """Write <run_dir>/adapter: the weights of the best validation with patience, else the last ones."""
    target = config.run_dir / "adapter"
    if training.accelerator.is_main_process:
        if config.train.patience and best is not None:
            _log.info("publishing step %d, the best of the validations", best.step)
            kept = RunFolder(config.run_dir).checkpoint(best.step)
            shutil.copytree(kept / "adapter", target, dirs_exist_ok=True)
        else:
            training.published.save_pretrained(target)
    wait_for_everyone()
    return target


def _due(step: int, every: int) -> bool:
    """Whether something done every so many steps is to be done now; 0 = never."""
    return every > 0 and step % every == 0


def _given_up(best: Best | None, config: RunConfig) -> bool:
    """Whether patience is at its end."""
    return best is not None and 0 < config.train.patience <= best.since


def _check_variant(path: Path, config: RunConfig) -> None:
    if (was := read_extra(path).get("variant", "corrected")) != config.variant:
        raise ConfigError(
            f"{path} was trained with variant = {was}, the config says {config.variant}; choose another run_dir, or "
            f"remove {path.parent} to start over"
        )


def _check_same(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key, what in (("manifest", "rows or features"), ("frozen", "weights of the denoiser or another read-out")):
        if saved.get(key) != wanted[key]:
            raise ConfigError(f"{path} was trained on other {what} than there are now; choose another run_dir")
    if (processes := saved.get("processes", 1)) != wanted["processes"]:
        raise ConfigError(
            f"{path} was trained by {processes} processes, now there are {wanted['processes']}; start as many as "
            "before, or choose another run_dir"
        )
    before = {**saved["settings"]}
    for section, model in (("loss", LossConfig), ("train", TrainConfig)):  # settings that are newer than the checkpoint
        before[section] = model.model_validate(before[section]).model_dump(mode="json")
    for section, values in wanted["settings"].items():
        for key, value in values.items():
            if before[section].get(key) != value:
                raise ConfigError(
                    f"{path} was trained with {section}.{key} = {before[section].get(key)}, the config says {value}; "
                    f"choose another run_dir, or remove {path.parent} to start over"
                )


@contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that the step under way ends and is saved; only in the main thread."""
    stopped: list[int] = []
    try:
        before = {
            s: signal.signal(s, lambda number, _frame: stopped.append(number)) for s in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
