"""What `sur deploy` registers with a Prefect server; `prefect.yaml` holds the same for Prefect's own command.

The parameter of a deployment is the whole configuration. Prefect's form therefore shows every setting with its
meaning, and refuses a value that does not fit. Workers of a process pool start the runs, in the folder in which
`sur deploy` was called, since a configuration's paths may be relative.
"""

from __future__ import annotations

import difflib
import importlib
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from prefect import Flow
from prefect.automations import (
    AutomationCore,
    ChangeFlowRunState,
    EventTrigger,
    Posture,
    ResourceSpecification,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron, Interval, Schedule

from sur.config.curation import BuildConfig
from sur.config.run import RunConfig, load_config
from sur.flows.runtime.launch import LOGGING_ENVIRONMENT
from sur.flows.runtime.tag import TAG
from sur.support.errors import ConfigError

POOL = "sur"
HEARTBEAT_SECONDS = 30  # Prefect's shortest
SILENT_SECONDS = 100  # three heartbeats; the process of a run that is silent for so long is gone
AUTOMATION = "sur: a run whose process is gone has crashed"


@dataclass(frozen=True)
class Deployable:
    """A flow that can be deployed.

    second: what happens to a second run beside a first one. `enqueue`: it waits. `cancel_new`: it is dropped.
    """

    flow: str
    description: str
    second: Literal["enqueue", "cancel_new"] = "enqueue"
    cron: str | None = None


DEPLOYABLES = (
    Deployable("extract", "Bring the feature store up to date with the rows."),
    Deployable("train", "Train the adapter from the store."),
    Deployable("pipeline", "Extract, train, evaluate, report."),
    Deployable(
        "nightly",
        "Encode new rows; if enough came, train, evaluate, and promote the adapter if it is better.",
        second="cancel_new",
        cron="0 2 * * *",
    ),
)
BUILD = Deployable("build", "Make rows from new pictures or prompts.")  # its configuration is of another kind


@dataclass(frozen=True)
class Target:
    """Where deployments go, and when they run. name: tells the deployments of several configurations apart."""

    name: str
    pool: str = POOL
    tags: tuple[str, ...] = ()
    working_dir: Path = Path()
    timezone: str | None = None
    schedules: tuple[Schedule, ...] = ()


def deploy(config: RunConfig | BuildConfig, flows: Sequence[str], target: Target) -> list[str]:
    """Register deployments, or bring them up to date; returns their full names, such as `nightly/shapes`.

    Also makes the work pool if it is missing, and the automation that ends the runs of processes that are gone.

    Raises: ConfigError for a flow that does not exist, or that does not take this kind of configuration.
    """
    known = {deployable.flow: deployable for deployable in (DEPLOYABLES if isinstance(config, RunConfig) else (BUILD,))}
    if unknown := [name for name in flows if name not in known]:
        other = "; build is for a build's file" if BUILD.flow not in known else ""
        raise ConfigError(f"there is no flow {', '.join(unknown)} to deploy; there are {', '.join(known)}{other}")
    ensure_pool(target.pool)
    ensure_automation()
    deployments = [_deployment(known[name], config, target) for name in flows]
    for deployment in deployments:
        deployment.apply()
    return [deployment.full_name for deployment in deployments]


def ensure_pool(name: str) -> None:
    """Make a work pool of type process with this name, unless a pool of this name exists."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def ensure_automation() -> None:
    """Have the server mark a run as crashed after some missed heartbeats, as after SIGKILL or a power cut."""
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    automation = AutomationCore(
        name=AUTOMATION,
        description=f"No heartbeat for {SILENT_SECONDS} seconds. What is in the store is safe; the next run goes on.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ends},
            match_related=ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                message=f"silent for {SILENT_SECONDS} seconds: its process is gone. What it finished is in the store",
                force=False,
            )
        ],
    )
    with get_client(sync_client=True) as client:
        for known in client.read_automations_by_name(AUTOMATION):
            client.update_automation(known.id, automation)
            return
        client.create_automation(automation)


def schedule_of(cron: str | None, every_minutes: float | None, timezone: str | None) -> tuple[Schedule, ...]:
    """The schedule that a user asked for, as a tuple of at most one.

    Raises: ConfigError for options that exclude each other, and for a cron line or time zone that is not valid.
    """
    if cron is not None and every_minutes is not None:
        raise ConfigError("give either a cron schedule or an interval, not both")
    if timezone is not None and every_minutes is not None:
        raise ConfigError("a timezone is for a cron schedule; an interval has none")
    if timezone is not None and timezone not in zoneinfo.available_timezones():
        near = difflib.get_close_matches(timezone, zoneinfo.available_timezones(), 1)
        raise ConfigError(
            f"there is no time zone {timezone}" + (f"; did you mean {near[0]}?" if near else "; such as Europe/Berlin")
        )
    if cron is not None:
        try:
            return (Cron(cron, timezone=timezone),)
        except ValueError as error:
            raise ConfigError(
                f"cron schedule '{cron}': {error}; it looks like '0 2 * * *', at two every night"
            ) from error
    if every_minutes is not None:
        return (Interval(timedelta(minutes=every_minutes)),)
    return ()


def deployment_settings(config: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Name, parameter and job variables of a configuration's deployments: a build step of `prefect.yaml`."""
    if not config:
        raise ConfigError("set SUR_CONFIG to the configuration to deploy: SUR_CONFIG=configs/shapes.yaml")
    return {
        "name": Path(config).stem,
        "config": parameter(load_config(config, overrides)),
        **job_variables(Path.cwd()),
    }


def parameter(config: RunConfig | BuildConfig) -> dict[str, Any]:
    """A configuration as plain values, as Prefect keeps parameters."""
    return config.model_dump(mode="json")


def _deployment(deployable: Deployable, config: RunConfig | BuildConfig, target: Target) -> RunnerDeployment:
    module = importlib.import_module(f"sur.flows.{deployable.flow}")
    flow: Flow[..., Any] = getattr(module, deployable.flow)
    cron = deployable.cron
    schedules = list(target.schedules) or ([Cron(cron, timezone=target.timezone)] if cron else [])
    strategy = ConcurrencyLimitStrategy(deployable.second.upper())
    return flow.to_deployment(  # pyright: ignore[reportReturnType]
        target.name,
        description=deployable.description,
        tags=[TAG, *target.tags],
        schedules=schedules,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
        parameters={"config": parameter(config)},
        work_pool_name=target.pool,
        job_variables=job_variables(target.working_dir),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def job_variables(working_dir: Path) -> dict[str, Any]:
    """Folder and environment in which a worker starts a run."""
    environment = {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_EXTRA_LOGGERS": LOGGING_ENVIRONMENT["PREFECT_LOGGING_EXTRA_LOGGERS"],
    }
    return {"working_dir": str(working_dir.absolute()), "env": environment}
