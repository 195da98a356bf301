"""How the costs of `sur plan --cluster` look in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from sur.cli.arguments import console

if TYPE_CHECKING:
    from sur.config.run import RunConfig


def print_costs(config: "RunConfig", rows: Sequence[int], gpus: Sequence[int], settings: Sequence[str]) -> None:
    """Print the costs of every scenario, each encoder's share of them, and the assumptions."""
    from dataclasses import asdict

    from sur.features.cost import assume, cost, encoder_costs, scenarios
    from sur.support.formatting import format_bytes, format_count, format_seconds

    assumptions = assume(settings)
    encoders = encoder_costs(config, assumptions)
    out = console()
    parts = Table("encoder", "arrays", "bytes a row", "operations a row", title="one row")
    for encoder in encoders:
        flops = f"{encoder.flops / 1e9:,.4g} GFLOP"
        parts.add_row(encoder.key, str(encoder.arrays), f"{encoder.bytes_per_row:,}", flops)
    out.print(parts)
    table = Table(
        "rows", "GPUs", "bytes", "partitions", "shards", "tasks", "GPU hours", "encode", "decode", "network", "Prefect",
        "wall", "tasks/s", "requests", "req/s", title=f"{config.store.rows_per_partition} rows a partition",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for scenario in scenarios(rows, gpus):
        total = cost(config, scenario, encoders, assumptions)
        counts = total.partitions, total.shards, total.tasks
        hours = total.compute_hours, total.picture_hours, total.network_hours, total.orchestration_hours, total.hours
        table.add_row(
            format_count(scenario.rows), f"{scenario.gpus:,}", format_bytes(total.bytes), *map(format_count, counts),
            _gpu_hours(total.gpu_hours), *(format_seconds(value * 3600) for value in hours),
            f"{total.tasks_per_second:.3g}", format_count(total.requests),
            format_count(round(total.requests_per_second)),
        )  # fmt: skip
    out.print(table)
    given = ", ".join(f"{name}={value:g}" if name != "gpu" else value for name, value in asdict(assumptions).items())
    out.print(f"assumed (change by --assume name=value): {given}")


def _gpu_hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "<0.001"
