"""A sweep: one training for every combination of swept values, all from one store."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from sur.config.losses import LossConfig
from sur.config.run import RunConfig, load_config
from sur.config.run_folder import RunFolder
from sur.support.errors import ConfigError
from sur.training.checkpoint import published_step
from sur.training.tracking.curves import read_curves

LONGEST_RUN_NAME = 100  # characters; file systems allow 255 bytes
_log = logging.getLogger(__name__)


class SweepRun(BaseModel):
    """One training of a sweep, in the folder <run_dir>/sweep/<name>. `values`: the swept settings by short name."""

    model_config = ConfigDict(frozen=True)

    name: str
    values: dict[str, Any]
    config: RunConfig


class Outcome(BaseModel):
    """Result of one run: numbers by name, or the error that ended it.

    `measured` has the losses of the published weights on held-back rows, divided by the losses' weights so that runs
    of different weights can be compared, and with an evaluation the scores under the adapter.
    """

    name: str
    values: dict[str, Any]
    step: int = 0
    measured: dict[str, float] = {}
    error: str | None = None


def sweep_runs(
    path: str | Path, overrides: Sequence[str], over: Sequence[str], seeds: Sequence[int] = ()
) -> list[SweepRun]:
    """The runs of a config file with overrides: one for each combination of `over` and seeds.

    over: "section.key=value,value". All runs are validated before any is trained.

    Raises ConfigError for a malformed or repeated key, or bad values.
    """
    swept = [_parse_over(text) for text in over] + ([("train.seed", list(seeds))] if seeds else [])
    if not swept:
        raise ConfigError("nothing to sweep; give --over section.key=value,value or --seeds 0,1")
    keys = [key for key, _ in swept]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ConfigError(f"{twice[0]} is swept twice; give all its values in one --over (--seeds sweeps train.seed)")
    if shared := [key for key in keys if key.split(".")[0] in ("run_dir", "store", "data")]:
        raise ConfigError(f"{shared[0]} cannot be swept: the runs share one store, and have folders of their own")
    base = load_config(path, overrides)
    runs = []
    for combination in product(*(values for _, values in swept)):
        values = dict(zip(_short(keys), combination, strict=True))
        name = run_name(values)
        own = {"run_dir": str(RunFolder(base.run_dir).sweep / name), "store.path": str(base.store.path)}
        settings = own | dict(zip(keys, combination, strict=True))
        config = load_config(path, [*overrides, *(f"{key}={json.dumps(value)}" for key, value in settings.items())])
        runs.append(SweepRun(name=name, values=values, config=config))
    if len({run.name for run in runs}) < len(runs):
        raise ConfigError("a value is swept twice; give every value once")
    return runs


def run_sweep(
    runs: Sequence[SweepRun],
    train: Callable[[RunConfig], Path],
    score: Callable[[RunConfig, Path], Mapping[str, float]] | None = None,
) -> list[Outcome]:
    """Train every run and score its adapter; returns the outcomes, also of runs that fail.

    A finished run is only measured again. `train` is `sur.training.fit.fit` or a function around it; `score` returns
    scores of an adapter by name. Stopping (Ctrl-C, SIGTERM) ends the sweep.
    """
    outcomes = []
    for number, run in enumerate(runs, start=1):
        _log.info("sweep: run %d of %d, %s", number, len(runs), run.name)
        try:
            adapter = train(run.config)
            measured = final_losses(run.config)
            if score is not None:
                measured |= score(run.config, adapter)
            step, _ = published_step(run.config.run_dir, run.config.train.patience > 0)
            outcomes.append(Outcome(name=run.name, values=run.values, step=step, measured=measured))
        except Exception as error:
            _log.warning("sweep: run %s failed: %s", run.name, error)
            _log.debug("sweep: traceback of run %s", run.name, exc_info=True)
            outcomes.append(Outcome(name=run.name, values=run.values, error=f"{type(error).__name__}: {error}"))
    return outcomes


def final_losses(config: RunConfig) -> dict[str, float]:
    """Losses of the published weights, divided by the losses' weights: on held-back rows, or of the last logged step.

    Their names say which, as in the curves: validation/alignment, train/alignment.
    """
    _, best = published_step(config.run_dir, config.train.patience > 0)
    records = read_curves(RunFolder(config.run_dir).curves)
    for kind in ("validation", "train"):
        usable = [r for r in records if kind in r and (best is None or kind == "train" or r["step"] == best)]
        if usable:
            return {f"{kind}/{name}": value / _weight(config.loss, name) for name, value in usable[-1][kind].items()}
    return {}


def run_name(values: Mapping[str, Any]) -> str:
    """A folder's name such as layer=18_weight=0.5; a digest follows where characters had to be replaced or cut."""
    raw = "_".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
    name = re.sub(r"[^\w.=+-]+", "-", raw, flags=re.ASCII)[:LONGEST_RUN_NAME]
    return name if name == raw else f"{name}~{hashlib.sha256(raw.encode()).hexdigest()[:6]}"


def _weight(settings: LossConfig, loss: str) -> float:
    """The factor of a loss in the objective."""
    return getattr(getattr(settings, loss, None), "weight", 1.0) or 1.0


def _parse_over(text: str) -> tuple[str, list[Any]]:
    """Split `section.key=value,value` into the key and its values, read as YAML."""
    key, equals, listed = text.partition("=")
    try:
        values = yaml.safe_load(f"[{listed}]")
    except yaml.YAMLError:
        values = []
    if not equals or not re.fullmatch(r"\w+(\.\w+)+", key) or not values or None in values:
        raise ConfigError(f"--over '{text}' must look like section.key=value,value")
    return key, values


def _short(keys: Sequence[str]) -> list[str]:
    """The last part of every key, or as many last parts as tell it from the others."""
    names = []
    for key in keys:
        parts = key.split(".")
        others = [other for other in keys if other != key]
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        names.append(next(end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)))
    return names
