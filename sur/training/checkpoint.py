"""Checkpoints of a training: config.json and safetensors only, whole or absent.

<run>/checkpoints/step-000200/adapter/   what inference needs (`Adapter.from_pretrained`): the moving average if any
<run>/checkpoints/step-000200/state.safetensors, state.json   what an exact resume needs
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sur.adapter.adapter import Adapter
from sur.config.run_folder import RunFolder, step_of
from sur.support.errors import ConfigError
from sur.support.files import sync
from sur.training.trainer import Training

FORMAT_VERSION = 1


def save_checkpoint(folder: Path, training: Training, extra: dict[str, Any]) -> Path:
    """Write a checkpoint for `training.step` under `folder`; it appears in one rename.

    `extra` must be JSON; `read_extra` hands it back.
    """
    target = folder / f"step-{training.step:06d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    training.published.save_pretrained(partial / "adapter")
    objective = training.accelerator.unwrap_model(training.objective)
    tensors = {f"objective.{k}": v for k, v in objective.learned().items()}
    if training.average is not None:
        adapter: Adapter = training.accelerator.unwrap_model(training.adapter)
        tensors |= {f"adapter.{k}": v for k, v in adapter.state_dict().items()}
    for number, optimiser in enumerate(training.optimisers):
        tensors |= {f"optimiser{number}.{k}": v for k, v in _optimiser_tensors(optimiser).items()}
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / "state.safetensors")
    content = {"format_version": FORMAT_VERSION, "step": training.step, **extra}
    if training.accelerator.scaler is not None:  # fp16: plain numbers
        content["scaler"] = training.accelerator.scaler.state_dict()
    (partial / "state.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    for path in [*partial.rglob("*"), partial]:
        sync(path)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    sync(folder)
    return target


def read_extra(path: Path) -> dict[str, Any]:
    """What was saved as `extra`, beside `step`.

    Raises ConfigError for a checkpoint of a newer version.
    """
    content = json.loads((path / "state.json").read_text())
    if content.pop("format_version") > FORMAT_VERSION:
        raise ConfigError(f"{path} was written by a newer version of this package; upgrade it to resume")
    return content


def load_checkpoint(path: Path, training: Training) -> None:
    """Restore adapter, its moving average, learnt parts of the objective, optimisers and step.

    Raises ConfigError for a checkpoint of a newer version, RuntimeError for one of another model.
    """
    content = read_extra(path)
    training.published.load_state_dict(load_file(path / "adapter" / "adapter.safetensors"))
    tensors = load_file(path / "state.safetensors")
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


def prune_checkpoints(folder: Path, keep: int, best: int | None = None) -> None:
    """Remove all checkpoints but the `keep` newest and that of step `best`; a removal that was cut short is ended."""
    found = sorted(folder.glob("step-*"), key=step_of)
    for path in found[:-keep]:
        if step_of(path) != best:
            path.rename(path.with_name(f".{path.name}.removed"))  # so that no half of it passes for a checkpoint
    for path in folder.glob(".step-*.removed"):
        shutil.rmtree(path)


def published_step(run_dir: Path, patient: bool) -> tuple[int, int | None]:
    """Step of a run's newest checkpoint (0 for none), and with patience that of the best one, which is published."""
    newest = RunFolder(run_dir).latest_checkpoint()
    if newest is None:
        return 0, None
    saved = read_extra(newest)
    best = saved.get("best") if patient else None
    return saved["step"], None if best is None else best["step"]


def processes_of(run_dir: Path) -> int:
    """How many processes trained a run."""
    newest = RunFolder(run_dir).latest_checkpoint()
    return 1 if newest is None else read_extra(newest).get("processes", 1)


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
