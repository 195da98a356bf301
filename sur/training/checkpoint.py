"""Checkpoints of a training: config.json and safetensors only, whole or absent.

<run>/checkpoints/step-000200/adapter/   what inference needs (`Adapter.from_pretrained`): the moving average if any
<run>/checkpoints/step-000200/state.safetensors, state.json   what an exact resume needs

state.json has the checksums of all of them, its own included. Checkpoints of older versions have none.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sur.adapter.base import BaseAdapter
from sur.adapter.hub import CONFIG_FILE, WEIGHTS_FILE
from sur.config.run_folder import RunFolder, step_of
from sur.support.checksums import check_file, check_seal, damaged, file_digest, read_object, sealed
from sur.support.errors import ConfigError, DamagedFile
from sur.support.files import replacing_folder
from sur.support.tensor_files import save_tensors
from sur.training.trainer import Training

CHECKPOINT_VERSION = 1
STATE, TENSORS = "state.json", "state.safetensors"
FILES = (f"adapter/{CONFIG_FILE}", f"adapter/{WEIGHTS_FILE}", TENSORS)  # beside state.json
REMEDY = "remove this checkpoint: the training then goes on from an older one"
_log = logging.getLogger(__name__)


def save_checkpoint(folder: RunFolder, training: Training, extra: dict[str, Any]) -> Path:
    """Write a checkpoint of `training.step`, durably, so that it appears in one rename; returns its folder.

    `extra` must be JSON; `read_extra` returns it.
    """
    target = folder.checkpoint(training.step)
    with replacing_folder(target, durable=True) as partial:
        training.published.save_pretrained(partial / "adapter")
        save_tensors(_state(training), partial / TENSORS)
        content = {"format_version": CHECKPOINT_VERSION, "step": training.step, **extra}
        if training.accelerator.scaler is not None:  # fp16: plain numbers
            content["scaler"] = training.accelerator.scaler.state_dict()
        content["files"] = {name: file_digest(partial / name) for name in FILES}
        (partial / STATE).write_text(sealed(content))
    return target


def usable_checkpoint(folder: RunFolder) -> Path | None:
    """The newest checkpoint that is whole, None when there is no checkpoint; warns of newer ones that are damaged.

    Raises DamagedFile when all of them are damaged.
    """
    faults: list[DamagedFile] = []
    for path in sorted(folder.checkpoints.glob("step-*"), key=step_of, reverse=True):
        try:
            check_checkpoint(path)
        except DamagedFile as error:
            faults.append(error)
            continue
        for fault in faults:
            _log.warning("%s. The training goes on from the older %s", fault, path)
        return path
    if faults:
        raise DamagedFile(f"{faults[0]}. No older checkpoint is whole; remove {folder.checkpoints} to start over")
    return None


def check_checkpoint(path: Path) -> None:
    """Raise DamagedFile when a file of a checkpoint is not as it was written, ConfigError for a newer version's."""
    content = read_extra(path)
    digests = content.get("files", {})
    for name in FILES:
        if name in digests:
            check_file(path / name, digests[name], REMEDY)
        elif name.endswith(".safetensors"):  # of an older version
            _check_form(path / name)


def set_aside_newer(folder: RunFolder, step: int) -> None:
    """Give the checkpoints after a step, which are damaged, names of which no checkpoint is read."""
    for path in folder.checkpoints.glob("step-*"):
        if step_of(path) > step:
            aside = path.with_name(f".{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            _log.warning("the damaged %s is kept as %s; remove it when you have looked at it", path.name, aside)


def read_extra(path: Path) -> dict[str, Any]:
    """What was saved as `extra`, and the `step`.

    Raises ConfigError for a checkpoint of a newer version, DamagedFile when state.json is not as it was written.
    """
    file = path / STATE
    if not file.is_file():
        raise damaged(file, "it is missing", REMEDY)
    content = read_object(file, REMEDY)
    version = content.pop("format_version", None)
    if isinstance(version, int) and version > CHECKPOINT_VERSION:
        raise ConfigError(f"{path} was written by a newer version of this package; upgrade it to resume")
    check_seal(file, {"format_version": version, **content}, REMEDY)
    if not isinstance(version, int) or not isinstance(content.get("step"), int):
        raise damaged(file, "it lacks format_version or step", REMEDY)
    return content


def load_checkpoint(path: Path, training: Training) -> None:
    """Restore adapter, its moving average, learnt parts of the objective, optimisers and step.

    Raises ConfigError for a checkpoint of a newer version, RuntimeError for one of another model.
    """
    content = read_extra(path)
    training.published.load_state_dict(load_file(path / "adapter" / WEIGHTS_FILE))
    tensors = load_file(path / TENSORS)
    if training.average is not None:
        training.accelerator.unwrap_model(training.adapter).load_state_dict(_under(tensors, "adapter."))
        training.average.n_averaged.fill_(content["step"])
    objective = training.accelerator.unwrap_model(training.objective)
    objective.load_learned(_under(tensors, "objective."))
    for number, optimiser in enumerate(training.optimisers):
        _load_optimiser(optimiser, _under(tensors, f"optimiser{number}."))
    training.step = content["step"]
    if (scaler := content.get("scaler")) is not None and training.accelerator.scaler is not None:
        training.accelerator.scaler.load_state_dict(scaler)


def prune_checkpoints(folder: RunFolder, keep: int, best: int | None = None) -> None:
    """Remove all checkpoints but the `keep` newest and that of step `best`; finish a removal that was interrupted."""
    _clear(folder.checkpoints.glob(".step-*.removed"))
    for path in sorted(folder.checkpoints.glob("step-*"), key=step_of)[:-keep]:
        if step_of(path) != best:
            path.rename(path.with_name(f".{path.name}.removed"))  # so that no half of it passes for a checkpoint
    _clear(folder.checkpoints.glob(".step-*.removed"))


def clear_leftovers(folder: RunFolder) -> None:
    """Remove what a killed training left half written or half removed; only for the holder of the run's lock."""
    _clear(folder.checkpoints.glob(".step-*.removed"))
    for place in (folder.checkpoints, folder.samples, folder.adapter):
        _clear(place.glob(".*.partial"))
    _clear(folder.path.glob(f".{folder.curves.name}.*.partial"))


def _clear(leftovers: Iterable[Path]) -> None:
    """Remove files and folders; what cannot be removed now stays for the next time, and ends no training."""
    for path in list(leftovers):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def published_step(run_dir: Path, patient: bool) -> tuple[int, int | None]:
    """Step of a run's newest checkpoint (0 for none), and with patience the best step, whose weights are published."""
    newest = RunFolder(run_dir).latest_checkpoint()
    if newest is None:
        return 0, None
    saved = read_extra(newest)
    best = saved.get("best") if patient else None
    return saved["step"], None if best is None else best["step"]


def processes_of(run_dir: Path) -> int:
    """Number of processes that trained a run."""
    newest = RunFolder(run_dir).latest_checkpoint()
    return 1 if newest is None else read_extra(newest).get("processes", 1)


def _check_form(path: Path) -> None:
    """Raise DamagedFile when a file is missing, or its length is not that of its tensors."""
    try:
        with safe_open(path, "pt"):
            return
    except (SafetensorError, FileNotFoundError) as error:
        raise damaged(path, f"it is no safetensors file ({error})", REMEDY) from None


def _state(training: Training) -> dict[str, Tensor]:
    """Every tensor of an exact resume beside the published adapter, by name."""
    objective = training.accelerator.unwrap_model(training.objective)
    tensors = {f"objective.{key}": value for key, value in objective.learned().items()}
    if training.average is not None:
        adapter: BaseAdapter = training.accelerator.unwrap_model(training.adapter)
        tensors |= {f"adapter.{key}": value for key, value in adapter.state_dict().items()}
    for number, optimiser in enumerate(training.optimisers):
        tensors |= {f"optimiser{number}.{key}": value for key, value in _optimiser_tensors(optimiser).items()}
    return tensors


def _optimiser_tensors(optimiser: Any) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def _load_optimiser(optimiser: Any, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
