"""Packages that the settings of a run ask for: a missing one is told before anything is started or encoded."""

from __future__ import annotations

import importlib.util

from sur.config.run import RunConfig
from sur.support.errors import ConfigError

ENCODING = ("extract", "pipeline", "nightly")
TRAINING = ("train", "sweep", "pipeline", "nightly")
EVALUATING = ("pipeline", "nightly")
RUNNER_PACKAGES = {"dask": ("prefect-dask", "distributed"), "ray": ("prefect-ray", "ray")}


def check_packages(flow: str, config: RunConfig) -> None:
    """Raise ConfigError when a package is missing that a stage of a flow will need."""
    if flow in ENCODING:
        runner = config.flow.runner
        _check(f"flow.runner={runner}", RUNNER_PACKAGES.get(runner, ()), "use flow.runner=processes")
    if flow in TRAINING and config.train.trackers:
        from sur.training.tracking.curves import tracker_names

        tracker_names(config.train.trackers)
    if flow in EVALUATING and config.evaluate.asked and config.evaluate.iqa:
        _check("evaluate.iqa", ("pyiqa",), "leave evaluate.iqa out")


def _check(setting: str, packages: tuple[str, ...], instead: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ConfigError(
            f"{setting} needs a package that is not installed ({missing[0]}): pip install {' '.join(packages)}, "
            f"or {instead}"
        )
