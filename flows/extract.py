"""Flow `extract`: plan, then encode with one encoder after the other, one task for each batch of partitions."""

import logging
import sys
from typing import ClassVar, TypedDict

if __name__ == "__main__":  # Prefect reads its environment at import: the launcher has to come first
    from sur.flows.runtime.launch import main

    sys.exit(main("extract"))

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State
from prefect.tasks import Task, exponential_backoff

from sur.cache import StoreBusy
from sur.config.run import RunConfig
from sur.features.devices import claim_device, on_device
from sur.features.extraction import Extraction, PartitionsDone, make_assets
from sur.features.outcome import FeatureOutcome, conclude, require_values
from sur.features.plan import Plan
from sur.features.prepare import prepare
from sur.flows.runtime.progress import flow_progress
from sur.flows.runtime.stopping import partitions_done
from sur.flows.runtime.workers import Workers
from sur.support.errors import EngineGone, WorkerLost, shown_message
from sur.support.formatting import format_arrays, format_bytes
from sur.support.timings import timed


class Extracted(TypedDict):
    """What one run did, and what the store holds of each feature now.

    rows: in the store. quarantined: left out by the check of the source. The next four are of this run.
    """

    rows: int
    quarantined: int
    partitions: int
    bytes: int
    tokens: int
    wall_seconds: float
    features: list[FeatureOutcome]


LOSSES_IN_VAIN = 3  # deaths of workers in a row without a finished partition in between
_log = logging.getLogger(__name__)


class ProcessExtraction:
    """The one extraction that is open in this process, so that models stay loaded from one task to the next.

    It opens with the first task, and closes with `close` or when a task brings another store, other rows or encoders.
    It is the class itself that keeps it: a task is sent to its worker with its globals, a class by name, an instance
    by value.
    """

    _open: ClassVar[Extraction | None] = None

    @classmethod
    def of(cls, config: RunConfig) -> Extraction:
        """The open extraction of a configuration."""
        if cls._open is None or not cls._open.fits(config):
            cls.close()
            cls._open = Extraction(config)
        return cls._open

    @classmethod
    def close(cls) -> None:
        """Let go of models, servers and the store; the next task opens them again."""
        extraction, cls._open = cls._open, None
        if extraction is not None:
            extraction.close()


def may_help(task: Task, run: TaskRun, state: State) -> bool:
    """Whether a retry can help; it cannot when the user has to change something."""
    error = state.data if isinstance(state.data, BaseException) else None
    return isinstance(error, (StoreBusy, EngineGone)) or error is None or shown_message(error) is None


@task(name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan_rows(config: RunConfig) -> Plan:
    """Scan rows, check the space, add new rows to the store, create the features; returns the plan."""
    return prepare(config, list(ProcessExtraction.of(config).encoders.values()))


@task(
    name="encode",
    task_run_name="{encoder} {partitions}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=may_help,
)
def encode_partitions(
    config: RunConfig, encoder: str, partitions: list[int], scope: str | None = None
) -> PartitionsDone:
    """Encode a batch of partitions with one encoder, and skip those that have a receipt; returns what was done.

    scope: name under which the workers of a run share out their devices.
    """
    if scope is not None:
        config = on_device(config, claim_device(config.flow.devices, scope))
    return ProcessExtraction.of(config).encode(encoder, partitions)


@task(name="assets", cache_policy=NO_CACHE, persist_result=False)
def store_assets(config: RunConfig) -> None:
    """Store what belongs to no row, such as the denoiser's read-out, unless the store has it."""
    make_assets(config)


@flow(name="extract", persist_result=False)
def extract(config: RunConfig) -> Extracted:
    """Bring the store up to date with rows and encoders, and with the denoiser's read-out where a loss needs it.

    Raises: NothingEncoded when a feature has no value of any row; what is done is kept.
    """
    with timed(config.run_dir, "extract", lambda: partitions_done(config.store.path)[0]):
        plan, done, features = encode_everything(config)
        outcomes = conclude(config, features, plan.quarantined)
        table = summary_table(plan, done, outcomes)
        create_table_artifact(table, key="extraction", description="What this run did")
        require_values(config, outcomes)
        store_assets(config)
    return {
        "rows": plan.rows_stored + plan.rows_new,
        "quarantined": len(plan.quarantined),
        "partitions": sum(len(part.partitions) for part in done),
        "bytes": sum(part.bytes for part in done),
        "tokens": sum(part.tokens for part in done),
        "wall_seconds": sum(part.wall_seconds for part in done),
        "features": outcomes,
    }


def encode_everything(config: RunConfig) -> tuple[Plan, list[PartitionsDone], list[str]]:
    """Run the flow's tasks in their order; returns the plan, what each batch did, and the features' names."""
    done: list[PartitionsDone] = []
    try:
        plan = plan_rows(config)
        create_table_artifact(feature_table(plan), key="features", description="Features and what was left to write")
        with Workers(config.flow) as workers:
            for key in ProcessExtraction.of(config).encoders:
                done += encode_with(workers, config, key)
        return plan, done, ProcessExtraction.of(config).feature_names()
    finally:
        ProcessExtraction.close()


def encode_with(workers: Workers, config: RunConfig, key: str) -> list[PartitionsDone]:
    """Encode all partitions that one encoder's features lack; returns what each batch did.

    When a worker dies, the partitions that are still missing are handed out again.

    Raises: WorkerLost when workers die several times in a row and finish no partition in between.
    """
    encode = encode_partitions.with_options(
        retries=config.flow.retries,
        retry_delay_seconds=exponential_backoff(config.flow.retry_seconds),
        timeout_seconds=config.flow.task_timeout_seconds,
    )
    done: list[PartitionsDone] = []
    in_vain = 0
    extraction = ProcessExtraction.of(config)
    pending, step = extraction.pending(key), config.flow.partitions_per_task
    with flow_progress(key, len(pending), "partitions") as progress:
        while pending:
            batches = [pending[start : start + step] for start in range(0, len(pending), step)]
            calls = ({"config": config, "encoder": key, "partitions": b, "scope": workers.scope} for b in batches)
            try:
                for batch, result in zip(batches, workers.run(encode, calls), strict=True):
                    done.append(result)
                    progress.advance(len(batch))  # including those that another run has computed in the meantime
                break
            except WorkerLost as loss:
                left = extraction.pending(key)
                in_vain = in_vain + 1 if len(left) == len(pending) else 0
                if in_vain == LOSSES_IN_VAIN:
                    raise WorkerLost(
                        f"{key}: workers died {in_vain} times and finished none of {len(left)} partitions (the last: "
                        f"{loss}). The usual reason is too little memory, see the kernel's log (dmesg): lower "
                        "the encoder's batch size or flow.workers, or give the workers more memory"
                    ) from loss
                _log.warning("%s: %s; %d partitions are handed out again", key, loss, len(left))
                pending = left
    return done


def feature_table(plan: Plan) -> list[dict[str, str]]:
    """One line for each feature: partitions done before this run, bytes to write, bytes a row, arrays."""
    return [
        {
            "feature": feature.name,
            "partitions done": f"{feature.partitions_done} of {feature.partitions_total}",
            "to write": format_bytes(feature.bytes_to_write),
            "bytes a row": str(feature.bytes_per_row or ""),
            "arrays": format_arrays(feature.arrays),
        }
        for feature in plan.features
    ]


def summary_table(plan: Plan, done: list[PartitionsDone], outcomes: list[FeatureOutcome]) -> list[dict[str, str]]:
    """One line for the rows, one for each encoder that had work, and one for what each feature holds now."""
    table = [
        {
            "what": "rows",
            "rows": str(plan.rows_stored + plan.rows_new),
            "left out": f"{len(plan.quarantined)} quarantined",
            "bytes": "",
            "tokens/s": "",
        }
    ]
    for key in dict.fromkeys(part.encoder for part in done):
        parts = [part for part in done if part.encoder == key]
        seconds = sum(part.wall_seconds for part in parts)
        tokens = sum(part.tokens for part in parts)
        table.append(
            {
                "what": key,
                "rows": str(sum(part.rows for part in parts)),
                "left out": f"{sum(part.missing for part in parts)} without a value",
                "bytes": format_bytes(sum(part.bytes for part in parts)),
                "tokens/s": f"{tokens / seconds:.0f}" if tokens and seconds else "",
            }
        )
    for outcome in outcomes:
        left_out = f"{len(outcome.lost)} without a value"
        table.append(
            {"what": str(outcome), "rows": str(outcome.rows), "left out": left_out, "bytes": "", "tokens/s": ""}
        )
    return table
