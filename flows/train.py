"""Flow `train`: fit an adapter on a store that `extract` has filled."""

import sys

if __name__ == "__main__":  # Prefect reads its environment at import: the launcher has to come first
    from sur.flows.runtime.launch import main

    sys.exit(main("train"))

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from sur.config.load import save_config
from sur.config.run import RunConfig
from sur.config.run_folder import RunFolder
from sur.flows.runtime.progress import flow_progress
from sur.support.timings import timed


@task(name="fit", cache_policy=NO_CACHE, persist_result=False)
def fit_adapter(config: RunConfig) -> Path:
    """Train, resuming from the last checkpoint of the run folder; returns the adapter's folder."""
    from sur.training.fit import fit

    with (
        timed(config.run_dir, "train", RunFolder(config.run_dir).last_step),
        flow_progress("train", config.train.steps, "steps") as progress,
    ):
        return fit(
            config,
            on_step=lambda step: progress.reach(step.step, f"loss {step.loss:.4f}"),
            on_begin=lambda: save_config(config),  # under the lock: a refused run leaves the other's settings alone
        )


@flow(name="train", persist_result=False)
def train(config: RunConfig) -> Path:
    """Train the adapter of a configuration; returns its folder."""
    folder = fit_adapter(config)
    create_markdown_artifact(f"Adapter: `{folder}`", key="adapter")
    return folder
