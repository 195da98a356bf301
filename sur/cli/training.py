"""Commands of the training stage: train, sweep."""

from __future__ import annotations

from typing import Annotated

import typer

from sur.cli.arguments import ConfigArgument, OverridesArgument, console, read_config, say
from sur.config.run_folder import RunFolder


def train(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Train the adapter on the store.

    Goes on from the last checkpoint of the run folder.

    `accelerate launch` and torchrun start it in several processes, which train together.
    """
    settings = read_config(config, overrides)

    from sur.cache import Store
    from sur.flows.runtime.launch import run_flow
    from sur.support.processes import launched

    Store.open(settings.store.path)  # a fault of the store is shown before Prefect starts
    folder = run_flow("train", settings)
    if launched()[0] == 0:
        say(f"adapter: {folder}")


def sweep(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    over: Annotated[
        list[str] | None,
        typer.Option(help="A setting and the values to sweep, such as loss.distillation.layer=18,22; repeatable."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Training seeds to run every combination with, such as 0,1,2.")
    ] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Evaluate every adapter, and write its report.")] = False,
) -> None:
    """Train every combination of some settings, and compare.

    All runs read one store; finished runs are not trained again.
    """
    settings = read_config(config, overrides)

    from rich.table import Table

    from sur.cache import Store
    from sur.flows.runtime.launch import run_flow
    from sur.support.errors import ConfigError
    from sur.training.sweep.report import COMPARISON, table
    from sur.training.sweep.runs import sweep_runs

    if evaluate and not settings.evaluate.sets:
        raise ConfigError("--evaluate needs evaluate.sets in the config; name some, or leave it out")
    if seeds is not None and not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise ConfigError(f"--seeds '{seeds}' must look like 0,1,2")
    runs = sweep_runs(config, overrides or [], over or [], [int(seed) for seed in (seeds or "").split(",") if seed])
    Store.open(settings.store.path)  # a fault of the store is shown before Prefect starts
    outcomes = run_flow("sweep", settings, runs=runs, evaluate=evaluate)
    header, *lines = table(outcomes)
    comparison = Table(*header)
    for line in lines:
        comparison.add_row(*line)
    console().print(comparison)
    say(f"comparison: {RunFolder(settings.run_dir).sweep / COMPARISON}")
    if failed := sum(outcome.error is not None for outcome in outcomes):
        say(f"{failed} of {len(outcomes)} runs failed; the same command tries them again", err=True)
        raise typer.Exit(2)
