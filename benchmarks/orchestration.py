"""What Prefect costs: the share of an extraction's wall time spent outside planning, encoding and writing.

    python benchmarks/orchestration.py configs/shapes.yaml run_dir=/tmp/o store.path=/tmp/o/store.zarr [key=value ...]

Runs the flow `extract` into a fresh run_dir against the embedded server, and prints two shares: of the flow alone, as
with a server that runs already, and of the whole command, start and end of the embedded server included. Then it prints
the process's memory during each encoder's tasks: medians over the first and the last quarter of the tasks.

For thousands of partitions, rows of the shapes world and a store with few rows in each:

    python -c 'from sur.shapes.dataset import write_dataset; write_dataset("/tmp/d", 16000, 0)'
    python benchmarks/orchestration.py configs/shapes.yaml run_dir=/tmp/o store.path=/tmp/o/s.zarr data.path=/tmp/d \
        store.rows_per_partition=8 'llm.layers=[2]' flow.partitions_per_task=16
"""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import psutil

from sur.cache import Store
from sur.config.run import load_config
from sur.flows.runtime.launch import prefect_ready

WORK = ("prepare", "pending", "encode", "make_assets")  # of the flow's module, or methods of its Extraction


def main(source: str, *overrides: str) -> int:
    """Time one extraction and print where the seconds went."""
    config = load_config(source, overrides)
    if Store.exists(config.store.path):
        print(f"{config.store.path} exists; give a store.path where there is none", file=sys.stderr)
        return 2
    inside: dict[str, list[float]] = {name: [] for name in WORK}
    memory: dict[str, list[int]] = {}
    started = time.perf_counter()
    with prefect_ready(config.run_dir):
        import sur.flows.extract as flow

        for name in WORK:
            owner = flow if hasattr(flow, name) else flow.Extraction
            setattr(owner, name, _timed(getattr(owner, name), inside[name]))
        encode = flow.Extraction.encode

        def watched(self: Any, key: str, partitions: Any) -> Any:
            result = encode(self, key, partitions)
            memory.setdefault(key, []).append(psutil.Process().memory_info().rss)
            return result

        flow.Extraction.encode = watched
        began = time.perf_counter()
        done = flow.extract(config)
        wall = time.perf_counter() - began
    whole = time.perf_counter() - started
    work = sum(map(sum, inside.values()))
    for name, calls in inside.items():
        print(f"{name:20} {len(calls):5} calls {sum(calls):8.2f} s")
    print(f"{done['partitions']:.0f} partitions of {config.store.rows_per_partition} rows, {wall:.2f} s in all")
    print(f"outside of these: {wall - work:.2f} s, {(wall - work) / wall:.2%} of the flow's wall time")
    share = (whole - work) / whole
    print(f"with the embedded server's start and end: {whole - work:.2f} s, {share:.2%} of {whole:.2f} s")
    for encoder, seen in memory.items():
        quarter = max(1, len(seen) // 4)
        first, last = median(seen[:quarter]) / 1e6, median(seen[-quarter:]) / 1e6
        print(f"memory in {encoder:12} {len(seen):5} tasks: {first:.0f} MB at first, {last:.0f} MB at last")
    return 0


def _timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def wrapper(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds.append(time.perf_counter() - began)

    return wrapper


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
