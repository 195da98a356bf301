"""One training run from a config: loader, resume, validation, checkpoints, curves."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from cache import Loader, Manifest, NoRows, Store
from sur.adapter import Adapter
from sur.batches import needs, open_loader, read_states, row_batches
from sur.checkpoint import latest_checkpoint, load_checkpoint, read_extra, save_checkpoint
from sur.errors import ConfigError
from sur.fingerprint import weights_fingerprint
from sur.losses import FrozenDenoiser, Objective
from sur.losses.denoising import denoiser_folder
from sur.readout import load_readout, readout_name
from sur.released.adapter import ReleasedAdapter, ReleasedAdapterConfig
from sur.released.objective import ReleasedObjective
from sur.stopping import Stopped
from sur.trainer import Step, Training

if TYPE_CHECKING:
    from sur.config import RunConfig

CURVES = "curves.jsonl"
MANIFEST = "manifest.safetensors"
_log = logging.getLogger(__name__)


def fit(config: RunConfig, on_step: Callable[[Step], None] | None = None) -> Path:
    """Train as `config` says, going on from the run's newest checkpoint; returns <run_dir>/adapter.

    Ctrl-C and SIGTERM save a checkpoint once the step under way is done. Raises Stopped then, ConfigError when the
    newest checkpoint belongs to other settings or other rows, IncompleteFeature when the store lacks what the losses
    read.
    """
    store = Store.open(config.store.path)
    check_settings(store, config)
    folder = config.run_dir / "checkpoints"
    newest = latest_checkpoint(folder)
    if newest is not None:
        _check_variant(newest, config)
    manifest = read_manifest(config, resuming=newest is not None)
    loader = open_loader(store, config, "train", manifest)
    held_back = open_validation(store, config, manifest)
    if config.loss.distillation.form == "teacher" and not store.missing(config.text.feature_name("complex")):
        _log.warning("every row has a complex prompt: a teacher teaches only rows without one, so the LLM adds nothing")
    training = build_training(store, config, loader.manifest_slots)
    digest = loader.manifest.digest
    extra = {
        "variant": config.variant,
        "settings": settings_of(config),
        "manifest": digest,
        "frozen": frozen_parts(store, config),
    }
    if newest is None:
        loader.manifest.save(config.run_dir / MANIFEST)
    else:
        _check_same(newest, read_extra(newest), extra)
        load_checkpoint(newest, training)
        _log.info("resuming %s at step %d of %d", newest, training.step, config.train.steps)
    if training.step >= config.train.steps and newest is not None:
        return _publish(training, config)
    curves = _open_curves(config.run_dir / CURVES, training.step)
    batches = loader.forever(*divmod(training.step, loader.batches_per_epoch))
    saved = newest
    with curves, _stop_on_signals() as stopped:
        for step in training.run(row_batches(batches, needs(config), config.train.seed)):
            if on_step is not None:
                on_step(step)
            record: dict[str, Any] = {}
            if step.step % config.train.log_every == 0 or step.step == 1:
                record = {"step": step.step, "learning_rate": step.learning_rate, "train": step.losses}
            if held_back and config.train.validate_every and step.step % config.train.validate_every == 0:
                record |= {"step": step.step, "validation": validate(held_back, config, training)}
            if record:
                curves.write(json.dumps(record) + "\n")
            due = config.train.save_every and step.step % config.train.save_every == 0
            if due or stopped or step.step == config.train.steps:
                curves.flush()
                saved = save_checkpoint(folder, training, extra)
            if stopped:
                raise Stopped(stopped[0], f"stopped at step {step.step}; run again to go on from {saved}")
    return _publish(training, config)


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
    dim = specs[wanted.simple].arrays["states"].shape[-1]
    torch.manual_seed(config.train.seed)
    trained_on = {"text": specs[wanted.simple].identity, "loss": config.loss.model_dump(mode="json")}
    llm_shape = specs[wanted.llm].arrays["states"].shape if wanted.llm else None
    if isinstance(config.adapter, ReleasedAdapterConfig):
        adapter = ReleasedAdapter(config.adapter.model_copy(update={"dim": dim}), trained_on=trained_on)
        denoiser = FrozenDenoiser.from_pipeline(*config.base) if config.loss.uses_denoiser else None
        return Training(adapter, ReleasedObjective(config.loss, dim, llm_shape, denoiser), config.train)
    adapter = Adapter(config.adapter.model_copy(update={"dim": dim}), trained_on=trained_on)
    slots = open_loader(store, config, "train").manifest_slots if slots is None else slots
    adapter.whiten(sample_states(store, wanted.simple, slots))
    objective = Objective(
        config.loss,
        dim,
        llm_shape=llm_shape,
        read_out=load_readout(store, config) if config.loss.uses_readout else None,
        denoiser=FrozenDenoiser.from_pipeline(*config.base) if config.loss.uses_denoiser else None,
    )
    return Training(adapter, objective, config.train)


def sample_states(store: Store, feature: str, slots: np.ndarray, rows: int = 512) -> Float[torch.Tensor, "n dim"]:
    """Token states of up to `rows` rows spread evenly over `slots`, float32."""
    chosen = slots[np.unique(np.linspace(0, len(slots) - 1, min(rows, len(slots))).astype(np.int64))]
    return read_states(store, feature, chosen).flatten(0, -2)


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
    free = {"save_every", "validate_every", "log_every", "device", "manifest"}
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
        "denoiser": weights_fingerprint(denoiser_folder(*config.base) / "unet") if loss.uses_denoiser else None,
        "readout": store.assets()[readout_name(config)].identity if loss.uses_readout else None,
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
    if config.loss.uses_readout and readout_name(config) in store.assets():
        made.append(("readout", store.assets()[readout_name(config)], config.readout))
    for section, spec, model in made:
        for key, value in model.model_dump(mode="json", exclude={"model"}).items():
            if key in spec.identity and spec.identity[key] != value:
                raise ConfigError(
                    f"{spec.name} in {store.path} was made with {section}.{key} = {spec.identity[key]!r}, the config "
                    f"says {value!r}; train with the stored value, or extract with the new one under another slug"
                )


def _publish(training: Training, config: RunConfig) -> Path:
    adapter: Adapter = training.accelerator.unwrap_model(training.adapter)
    return adapter.save_pretrained(config.run_dir / "adapter")


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
    for section, values in wanted["settings"].items():
        for key, value in values.items():
            if saved["settings"][section].get(key) != value:
                raise ConfigError(
                    f"{path} was trained with {section}.{key} = {saved['settings'][section].get(key)}, the config says "
                    f"{value}; choose another run_dir, or remove {path.parent} to start over"
                )


def _open_curves(path: Path, step: int):
    """The curves file, cut back to what a checkpoint at `step` had seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.read_text().splitlines() if path.exists() and step else []
    path.write_text("".join(line + "\n" for line in kept if json.loads(line)["step"] <= step))
    return path.open("a")


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
