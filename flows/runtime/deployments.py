"""What `sur deploy` registers with a Prefect server, and `prefect.yaml` says for Prefect's own command.

A deployment carries the whole configuration as its parameter, so that Prefect's form shows every setting with its
meaning and refuses what does not fit. Its runs are started by workers of a process pool, in the folder that `sur
deploy` was called in, since a configuration's paths may be relative.
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
from sur.support.errors import ConfigError

POOL, TAG = "sur", "sur"
HEARTBEAT_SECONDS = 30  # Prefect's shortest
SILENT_SECONDS = 100  # three heartbeats: no process is behind a run that is silent for so long
AUTOMATION = "sur: a run whose process is gone has crashed"


@dataclass(frozen=True)
class Deployable:
    """A flow that can be deployed. A second run of it waits (`enqueue`) or is dropped (`cancel_new`)."""

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


BUILD = Deployable("build", "Make rows from new pictures or prompts.")  # of a configuration of its own


@dataclass(frozen=True)
class Target:
    """Where deployments go, and when they run. name: distinguishes those of several configurations."""

    name: str
    pool: str = POOL
    tags: tuple[str, ...] = ()
    working_dir: Path = Path()
    timezone: str | None = None
    schedules: tuple[Schedule, ...] = ()


def deploy(config: RunConfig | BuildConfig, flows: Sequence[str], target: Target) -> list[str]:
    """Register deployments, or bring them up to date; returns their full names, such as `nightly/shapes`.

    Makes the work pool where there is none, and the automation that ends the runs of processes that are gone.

    Raises: ConfigError for a flow that there is not, or not for this kind of configuration.
    """
    known = {each.flow: each for each in (DEPLOYABLES if isinstance(config, RunConfig) else (BUILD,))}
    if unknown := [name for name in flows if name not in known]:
        other = "; build is for a build's file" if BUILD.flow not in known else ""
        raise ConfigError(f"there is no flow {', '.join(unknown)} to deploy; there are {', '.join(known)}{other}")
    ensure_pool(target.pool)
    ensure_automation()
    made = [_deployment(known[name], config, target) for name in flows]
    for each in made:
        each.apply()
    return [each.full_name for each in made]


def ensure_pool(name: str) -> None:
    """Make the process work pool where there is none."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))


def ensure_automation() -> None:
    """Have the server call a run crashed when it is silent for some heartbeats, as after SIGKILL or a power cut."""
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    wanted = AutomationCore(
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
            client.update_automation(known.id, wanted)
            return
        client.create_automation(wanted)


def schedule_of(cron: str | None, every_minutes: float | None, timezone: str | None) -> tuple[Schedule, ...]:
    """The schedule that a user gave, none if none."""
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


def read_config(config: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Step of `prefect.yaml`: what a configuration's file gives its deployments."""
    if not config:
        raise ConfigError("set SUR_CONFIG to the configuration that is to be deployed: SUR_CONFIG=configs/shapes.yaml")
    return {
        "name": Path(config).stem,
        "config": parameter(load_config(config, overrides)),
        **job_variables(Path.cwd()),
    }


def parameter(config: RunConfig | BuildConfig) -> dict[str, Any]:
    """A configuration as Prefect keeps it."""
    return config.model_dump(mode="json")


def _deployment(each: Deployable, config: RunConfig | BuildConfig, target: Target) -> RunnerDeployment:
    flow: Flow[..., Any] = getattr(importlib.import_module(f"flows.{each.flow}"), each.flow)
    schedules = list(target.schedules) or ([Cron(each.cron, timezone=target.timezone)] if each.cron else [])
    strategy = ConcurrencyLimitStrategy(each.second.upper())
    return flow.to_deployment(  # pyright: ignore[reportReturnType]
        target.name,
        description=each.description,
        tags=[TAG, *target.tags],
        schedules=schedules,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
        parameters={"config": parameter(config)},
        work_pool_name=target.pool,
        job_variables=job_variables(target.working_dir),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def job_variables(working_dir: Path) -> dict[str, Any]:
    """What a worker starts a run with."""
    environment = {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "cache,sur,flows",
    }
    return {"working_dir": str(working_dir.absolute()), "env": environment}
