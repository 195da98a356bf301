"""What `sur plan --cluster` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from sur.cli.arguments import console

if TYPE_CHECKING:
    from sur.config.run import RunConfig


def print_costs(config: "RunConfig", rows: Sequence[int], gpus: Sequence[int], settings: Sequence[str]) -> None:
    """Every scenario's costs, each encoder's share of them, and what was assumed."""
    from dataclasses import asdict

    from sur.features.cost import assume, cost, encoder_costs, scenarios
    from sur.support.formatting import format_bytes, format_count, format_seconds

    assumptions = assume(settings)
    encoders = encoder_costs(config, assumptions)
    out = console()
    parts = Table("encoder", "arrays", "bytes a row", "operations a row", title="one row")
    for each in encoders:
        parts.add_row(each.key, str(each.arrays), f"{each.bytes_per_row:,}", f"{each.flops / 1e9:,.4g} GFLOP")
    out.print(parts)
    table = Table(
        "rows", "GPUs", "bytes", "partitions", "shards", "tasks", "GPU hours", "encode", "decode", "network", "Prefect",
        "wall", "tasks/s", "requests", "req/s", title=f"{config.store.rows_per_partition} rows a partition",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for scenario in scenarios(rows, gpus):
        made = cost(config, scenario, encoders, assumptions)
        counts = made.partitions, made.shards, made.tasks
        hours = made.compute_hours, made.picture_hours, made.network_hours, made.orchestration_hours, made.hours
        table.add_row(
            format_count(scenario.rows), f"{scenario.gpus:,}", format_bytes(made.bytes), *map(format_count, counts),
            _gpu_hours(made.gpu_hours), *(format_seconds(each * 3600) for each in hours),
            f"{made.tasks_per_second:.3g}", format_count(made.requests), format_count(round(made.requests_per_second)),
        )  # fmt: skip
    out.print(table)
    given = ", ".join(f"{name}={value:g}" if name != "gpu" else value for name, value in asdict(assumptions).items())
    out.print(f"assumed (change by --assume name=value): {given}", markup=False)


def _gpu_hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "<0.001"
