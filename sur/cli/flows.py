"""Commands that run whole pipelines, now or on a schedule: pipeline, demo, nightly, deploy, up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sur.cli.arguments import ConfigArgument, OverridesArgument, read_config, say

if TYPE_CHECKING:
    from sur.config.run import RunConfig

POOL_HELP = "Work pool whose workers start the runs; created if there is none."


def pipeline(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Extract, train, evaluate and report in one go."""
    settings = read_config(config, overrides)

    from sur.flows.runtime.launch import run_flow

    _print_outcome(settings, run_flow("pipeline", settings))


def demo(
    config: Annotated[Path, typer.Option(help="YAML file of the demo, or the name of a shipped one.")] = Path("shapes"),
    rows: Annotated[int, typer.Option(min=1, help="Rows with picture, narrative and complex prompt.")] = 3600,
    unpaired: Annotated[int, typer.Option(min=0, help="Narrative prompts without picture or complex prompt.")] = 2400,
    overrides: OverridesArgument = None,
) -> None:
    """Make the shapes world's rows and run its whole pipeline.

    Ends with a report.
    """
    settings = read_config(config, overrides)

    from sur.flows.runtime.launch import run_flow
    from sur.shapes.dataset import write_dataset
    from sur.support.log import log_to_stderr

    with log_to_stderr():
        write_dataset(settings.data.path, rows, unpaired)
    _print_outcome(settings, run_flow("pipeline", settings))


def nightly(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Encode new rows; if enough came, train and promote.

    The adapter is promoted if it is better than the one in use.
    """
    settings = read_config(config, overrides)

    from sur.config.run_folder import RunFolder
    from sur.flows.runtime.launch import run_flow

    night = run_flow("nightly", settings)
    say(f"{night.rows} rows, {night.partitions} partitions computed")
    if night.verdict is None:
        say(f"{night.waiting} new rows of the {settings.promote.min_new_rows} that make a training worth it")
        return
    verdict, (gain, low, high) = night.verdict, night.verdict.gain
    outcome = "promoted" if verdict.promoted else "not promoted"
    say(
        f"candidate {verdict.candidate} against {verdict.against} by {verdict.scorer}: {gain:+.3f} "
        f"[{low:+.3f}, {high:+.3f}] on {verdict.prompts} prompts: {outcome}"
    )
    say(f"in use: {RunFolder(settings.run_dir).promoted}")


def deploy(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    flow: Annotated[
        list[str] | None,
        typer.Option(help="Flow to deploy: extract, train, pipeline or nightly (default: all four), or build."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the deployments (default: the file's name).")] = None,
    pool: Annotated[str, typer.Option(help=POOL_HELP)] = "sur",
    cron: Annotated[
        str | None, typer.Option(help="Cron schedule of the runs (default for nightly: '0 2 * * *').")
    ] = None,
    every: Annotated[float | None, typer.Option(min=0.1, help="Minutes between two runs, instead of --cron.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of the cron schedule, such as Europe/Berlin (default: UTC).")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Extra tag of the deployments; repeatable.")] = None,
) -> None:
    """Register the flows with your Prefect server.

    Runs are started by the server's form, or on a schedule.
    """
    from sur.config.curation import load_build_config
    from sur.flows.runtime.launch import configured_server, prefect_ready
    from sur.support.errors import ConfigError

    if (cron or every) and not flow:
        raise ConfigError(
            "say which flow the schedule is for: --flow nightly; all at once would meet in one run folder"
        )
    building = "build" in (flow or [])
    settings = load_build_config(config, overrides or []) if building else read_config(config, overrides)
    if configured_server(os.environ) is None:
        raise ConfigError(
            "there is no Prefect server to deploy to: set PREFECT_API_URL to yours, or start one by `sur up` in "
            "another terminal and set what it prints"
        )
    with prefect_ready(settings.run_dir):
        from sur.flows.runtime.deployments import DEPLOYABLES, Target, schedule_of
        from sur.flows.runtime.deployments import deploy as register

        target = Target(
            name or config.stem, pool, tuple(tag or ()), Path.cwd(), timezone, schedule_of(cron, every, timezone)
        )
        for full_name in register(settings, flow or [deployable.flow for deployable in DEPLOYABLES], target):
            say(f"deployed {full_name}")
    say(f"run one by: prefect deployment run '{(flow or ['extract'])[0]}/{target.name}'")


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server on 127.0.0.1.")] = 4200,
    pool: Annotated[str, typer.Option(help=POOL_HELP)] = "sur",
    runs: Annotated[int, typer.Option(min=1, help="Runs that the worker executes at a time.")] = 1,
    logs: Annotated[Path, typer.Option(help="Folder of the server's and the worker's logs.")] = Path("runs/up"),
) -> None:
    """Start a Prefect server and a worker on this machine.

    For those who have none; Ctrl-C ends both.
    """
    from sur.flows.runtime.launch import configured_server
    from sur.flows.runtime.up import server_address
    from sur.flows.runtime.up import up as serve
    from sur.support.errors import ConfigError

    address = server_address(port)
    if (other := configured_server(os.environ)) not in (None, address):
        raise ConfigError(
            f"you have a Prefect server, {other}; start a worker of it by "
            f"`prefect worker start --pool {pool} --type process`, or unset PREFECT_API_URL"
        )

    def ready() -> None:
        say(f"Prefect: {address.removesuffix('/api')}, worker of pool {pool}; logs in {logs}; Ctrl-C ends both")
        say(f"in another terminal: export PREFECT_API_URL={address}")

    serve(port, pool, runs, logs, ready)


def _print_outcome(settings: "RunConfig", result: Path) -> None:
    """Print the scores of a pipeline that has evaluated, and the path of its report or adapter."""
    if settings.evaluate.asked:
        from sur.cli.evaluation import print_scores
        from sur.config.run_folder import RunFolder
        from sur.evaluation.results import Evaluation

        print_scores(Evaluation.model_validate_json(RunFolder(settings.run_dir).evaluation.read_text()))
    say(f"{'report' if settings.evaluate.asked else 'adapter'}: {result}")
