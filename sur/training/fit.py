"""One whole training of a run: prepare it, train step by step, publish the adapter."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sur.adapter.base import BaseAdapter
from sur.adapter.losses.batch import RowBatch
from sur.cache import Store
from sur.config.run_folder import RunFolder
from sur.support.errors import DamagedFile, NotFound, RunBusy
from sur.support.locks import folder_lock
from sur.support.processes import launched
from sur.support.signals import Stopped, collected_signals
from sur.training.batches import needed_features, open_loader, row_batches
from sur.training.checkpoint import (
    clear_leftovers,
    prune_checkpoints,
    save_checkpoint,
    set_aside_newer,
    usable_checkpoint,
)
from sur.training.distributed import as_first, in_any, together, wait_for_everyone
from sur.training.resume import check_settings, check_variant, origin_of, resume
from sur.training.setup import (
    Run,
    build_training,
    read_manifest,
    warn_of_an_idle_teacher,
    warn_of_cut_prompts,
)
from sur.training.tracking.curves import Curves, start_trackers
from sur.training.tracking.sample_grids import Sampler
from sur.training.trainer import Step
from sur.training.validation import open_validation, update_best, validate

if TYPE_CHECKING:
    from sur.config.run import RunConfig

_log = logging.getLogger(__name__)


@together()
def fit(
    config: RunConfig, on_step: Callable[[Step], None] | None = None, on_begin: Callable[[], object] | None = None
) -> Path:
    """Train as `config` says, going on from the run's newest checkpoint; returns <run_dir>/adapter.

    The run's folder is locked; the lock ends with this process, however it ends. on_begin: called by the first process
    once it holds the lock.

    Ctrl-C and SIGTERM save a checkpoint once the current step is done. Processes started by `accelerate launch` or
    torchrun train together, and only the first one writes. Raises Stopped on a signal, ConfigError when the newest
    checkpoint belongs to other settings or other rows, IncompleteFeature when the store lacks features that the
    losses read, RunBusy while another training is at work in the run's folder.
    """
    with _alone_in(config.run_dir) if launched()[0] == 0 else nullcontext():
        if launched()[0] == 0:
            clear_leftovers(RunFolder(config.run_dir))
            if on_begin is not None:
                on_begin()
        store = Store.open(config.store.path)
        check_settings(store, config)
        run = _open_run(store, config)
        if not run.ended:
            _train(run, _rows(run), on_step)
        return _publish(run)


@contextmanager
def _alone_in(run_dir: Path) -> Iterator[None]:
    """Hold a run's folder inside the block. Raises RunBusy while another training holds it."""
    with folder_lock(run_dir, wait=False) as free:
        if not free:
            raise RunBusy(f"another training is at work in {run_dir}; wait for its end, or choose another run_dir")
        yield


def _open_run(store: Store, config: RunConfig) -> Run:
    """The training, its rows and its place in the run's folder; at the newest checkpoint where there is one."""
    folder = RunFolder(config.run_dir)
    newest = usable_checkpoint(folder)
    if newest is not None:
        check_variant(newest, config.variant)
    manifest = read_manifest(folder, config.train, resuming=newest is not None)
    loader = open_loader(store, config, "train", manifest)
    validation = open_validation(store, config, manifest)
    warn_of_an_idle_teacher(store, config)
    warn_of_cut_prompts(store, config)
    training = build_training(store, config, loader.manifest_slots)
    origin = origin_of(store, config, loader)
    best = None
    if newest is not None:
        best = resume(newest, training, origin)
        wait_for_everyone()  # no other process looks at the damaged ones any more
        if training.accelerator.is_main_process:
            set_aside_newer(folder, training.step)
    elif training.accelerator.is_main_process:
        loader.manifest.save(folder.manifest)
    draws = config.train.sample_every and training.accelerator.is_main_process
    return Run(
        folder=folder,
        training=training,
        loader=loader,
        validation=validation,
        features=needed_features(config),
        origin=origin,
        curves=Curves(folder.curves, training.step, training.accelerator),
        sampler=Sampler(config.base, config.train, config.evaluate, folder) if draws else None,
        best=best,
    )


def _rows(run: Run) -> Iterator[RowBatch]:
    """Batches without end, from the run's next step on."""
    batches = run.loader.forever(*divmod(run.training.step, run.loader.batches_per_epoch))
    order = run.loader.order
    return row_batches(batches, run.features, run.settings.seed, order.rank, order.world_size)


def _train(run: Run, rows: Iterator[RowBatch], on_step: Callable[[Step], None] | None) -> None:
    """Train to the run's end: its last step, or the end of its patience. Raises Stopped on a signal."""
    training = run.training
    start_trackers(
        training.accelerator, run.settings.trackers, run.folder.trackers, run.origin["settings"], training.step
    )
    with run.curves, collected_signals() as signals:
        for step in training.run(rows):
            if on_step is not None:
                on_step(step)
            _log_step(run, step, _validate(run))
            _sample(run)
            stopping = in_any(bool(signals))
            _save(run, stopping)
            if stopping:
                raise _stopped(run, signals)
            if run.ended:
                break


def _validate(run: Run) -> dict[str, float] | None:
    """Losses on held-back rows, and the best so far brought up to date; None at steps without validation."""
    every = run.settings.validate_every
    if not (run.validation and every and (run.is_last_step or _due(run.training.step, every))):
        return None
    losses = as_first(validate(run.validation, run.features, run.training))
    if run.settings.patience:
        run.best = update_best(run.best, run.training.step, losses)
    return losses


def _log_step(run: Run, step: Step, validation: dict[str, float] | None) -> None:
    """Write what is to be recorded of a step to the curves."""
    record: dict[str, Any] = {}
    if _due(step.step, run.settings.log_every) or step.step == 1:
        record |= {"learning_rate": step.learning_rate, "train": step.losses}
    if validation is not None:
        record["validation"] = validation
    if record:
        run.curves.write({"step": step.step, **record})


def _sample(run: Run) -> None:
    """Draw the sample prompts, at steps at which it is due."""
    if run.sampler is not None and _due(run.training.step, run.settings.sample_every):
        run.sampler.draw(run.training.published, run.training.step)


def _save(run: Run, stopping: bool) -> None:
    """Write a checkpoint when it is due, at a stop, at the end and at the best step; remove those not to be kept."""
    step, best = run.training.step, run.best
    improved = best is not None and best.step == step
    due = stopping or run.ended or improved or _due(step, run.settings.save_every)
    if not (due and run.training.accelerator.is_main_process):
        return
    run.curves.flush()
    save_checkpoint(run.folder, run.training, run.origin | {"best": best and best.as_json()})
    prune_checkpoints(run.folder, run.settings.keep_checkpoints, best and best.step)


def _stopped(run: Run, signals: Sequence[int]) -> Stopped:
    """The exception that ends a stopped run; the signal may have gone to another of the processes."""
    step = run.training.step
    number = signals[0] if signals else signal.SIGTERM
    return Stopped(number, f"stopped at step {step}; run again to go on from {run.folder.checkpoint(step)}")


def _publish(run: Run) -> Path:
    """Write <run_dir>/adapter: the weights of the best validation with patience, else the last ones."""
    target = run.folder.adapter
    if run.training.accelerator.is_main_process:
        if run.settings.patience and run.best is not None:
            _log.info("publishing step %d, the best of the validations", run.best.step)
            _published_best(run.folder.checkpoint(run.best.step)).save_pretrained(target)
        else:
            run.training.published.save_pretrained(target)
    wait_for_everyone()
    return target


def _published_best(checkpoint: Path) -> BaseAdapter:
    """The adapter of the best step's checkpoint. Raises DamagedFile when it is not as it was written."""
    try:
        return BaseAdapter.from_pretrained(checkpoint / "adapter")
    except (DamagedFile, NotFound) as error:
        raise DamagedFile(
            f"the weights of the best validation cannot be published: {error}; or publish the last weights with "
            "train.patience=0"
        ) from error


def _due(step: int, every: int) -> bool:
    """Whether something done every so many steps is to be done now; 0 = never."""
    return every > 0 and step % every == 0
