"""Whether a store of a million rows costs as much a row as one of a thousand, and opens and resumes as fast.

    python benchmarks/scale.py FOLDER [--rows 1000 10000 100000 1000000] [--shape 256] [--plot docs/scale.png]

Every size is measured in a process of its own: rows are added and written, the store is opened, a resume planned, a
loader made and taken up in the middle of an epoch, rows read at random. Memory: the largest anonymous memory of each
phase, over what the interpreter had before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from memory import Peak

from sur.cache import ArraySpec, FeatureSpec, Loader, RowRecord, RowWise, Selection, Store, row_id

BATCH = 256
BATCHES = 200
COSTS = ("add rows", "write", "read at random")  # by row
WAITS = ("open", "plan a resume", "loader", "resume mid-epoch")
T = TypeVar("T")


def rows(n: int) -> Iterator[RowRecord]:
    """`n` rows with a prompt each."""
    for number in range(n):
        prompt = f"a prompt of ordinary length, as people write them, with a number: {number}"
        yield RowRecord(row_id(prompt, "", None), prompt)


class Watch:
    """Seconds and memory of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        began = time.perf_counter()
        with Peak() as peak:
            yield
        self.seconds[name] = time.perf_counter() - began
        self.megabytes[name] = peak.megabytes

    def best(self, name: str, work: Callable[[], T], times: int = 3) -> T:
        """The median of several times, for what is short."""
        taken, result = [], None
        for _ in range(times):
            with self.phase(name):
                result = work()
            taken.append(self.seconds[name])
        self.seconds[name] = sorted(taken)[times // 2]
        assert result is not None
        return result


def measure(path: Path, n: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """Seconds (costs by row) and megabytes of every phase at one size."""
    warm_up(path.with_name("warm-up"), shape)
    watch = Watch()
    store = Store.create(path)
    with watch.phase("add rows"):
        store.add_rows(rows(n))
    store.set_members("data", (row.tobytes() for row in store.row_ids()[store.filled()]))
    store.ensure_feature(FeatureSpec("x", "x", {}, {"states": ArraySpec("float16", shape)}))
    size = store.rows_per_partition
    values = np.random.default_rng(0).standard_normal((size, *shape), dtype=np.float32).astype(np.float16)
    with watch.phase("write"):
        for partition in range(store.n_partitions):
            store.write_partition("x", partition, {"states": values[: n - partition * size]})
    del store
    opened = watch.best("open", lambda: counted(Store.open(path)))
    watch.best("plan a resume", lambda: [Store.open(path).pending("x")])
    loader = watch.best(
        "loader", lambda: Loader(opened, ["x"], batch_size=BATCH, selection=Selection("data", "all"), reader=RowWise)
    )
    watch.best("resume mid-epoch", lambda: next(loader.batches(3, len(loader) // 2)))
    batches = loader.forever(1)
    with watch.phase("read at random"):
        for _ in range(BATCHES):
            next(batches)
    for name in COSTS:
        watch.seconds[name] /= n if name != "read at random" else BATCHES * BATCH
    shutil.rmtree(path)
    return {"seconds": watch.seconds, "megabytes": watch.megabytes}


def counted(store: Store) -> Store:
    """The store, its rows known."""
    return store if store.n_rows else store


def warm_up(path: Path, shape: tuple[int, ...]) -> None:
    """Everything once, small, so that imports are not measured."""
    shutil.rmtree(path, ignore_errors=True)
    store = Store.create(path)
    store.add_rows(rows(BATCH))
    store.ensure_feature(FeatureSpec("x", "x", {}, {"states": ArraySpec("float16", shape)}))
    store.write_partition("x", 0, {"states": np.zeros((BATCH, *shape), np.float16)})
    next(Loader(store, ["x"], batch_size=BATCH, selection=Selection(split="all"), reader=RowWise).forever())
    shutil.rmtree(path)


def plot(results: dict[int, dict[str, Any]], target: Path) -> None:
    """Costs a row, and waits, over the number of rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = list(results)
    for name in COSTS:
        left.plot(sizes, [1e6 * results[n]["seconds"][name] for n in sizes], marker="o", label=name)
    for name in WAITS:
        right.plot(sizes, [results[n]["seconds"][name] for n in sizes], marker="o", label=name)
    left.set(xscale="log", ylim=(0, None), title="microseconds a row")
    right.set(xscale="log", yscale="log", title="seconds")
    for axes in (left, right):
        axes.set_xlabel("rows in the store")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=110)


def main() -> int:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--shape", type=int, nargs="+", default=[256])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.measure:
        print(json.dumps(measure(args.folder / "scale.zarr", args.measure, tuple(args.shape))))
        return 0
    results: dict[int, dict[str, Any]] = {}
    for n in args.rows:
        command = [
            sys.executable,
            __file__,
            str(args.folder),
            "--shape",
            *map(str, args.shape),
            "--measure",
            str(n),
        ]
        results[n] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"{n} rows done", file=sys.stderr)
    heads = [*(f"{name}, us a row" for name in COSTS), *(f"{name}, s" for name in WAITS)]
    print(f"| rows | {' | '.join(heads)} |")
    print("|---" * (1 + len(heads)) + "|")
    for n, values in results.items():
        cells = [f"{1e6 * values['seconds'][name]:.1f}" for name in COSTS]
        cells += [f"{values['seconds'][name]:.3f}" for name in WAITS]
        print(f"| {n:,} | {' | '.join(cells)} |")
    print(f"\n| rows | {' | '.join(f'{name}, MB held' for name in (*COSTS, *WAITS))} |")
    print("|---" * (1 + len(heads)) + "|")
    for n, values in results.items():
        cells = [f"{values['megabytes'][name]:.0f}" for name in (*COSTS, *WAITS)]
        print(f"| {n:,} | {' | '.join(cells)} |")
    if args.plot:
        plot(results, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
