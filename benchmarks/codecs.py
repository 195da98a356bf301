"""What each codec and each rounding costs and saves on the features of a real store, and what it does to a training.

    sur extract configs/shapes.yaml
    python benchmarks/codecs.py configs/shapes.yaml FOLDER [section.key=value ...]

First table: a partition of every feature, packed, written, read whole and read row by row; speeds as ratios to codec
raw in the same run. Second table: the store is copied with all states rounded, the same short training run on each
copy, and each adapter judged on the exact features of the validation rows.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sur.cache import ArraySpec, FeatureSpec, Store, bfloat16_to_float32
from sur.cache.format.codecs import CODECS
from sur.cache.format.dtypes import MANTISSA_BITS
from sur.config.run import load_config
from sur.config.run_folder import RunFolder
from sur.training.checkpoint import load_checkpoint
from sur.training.fit import build_training, fit, open_validation, validate

REPEATS = 5
SINGLE_ROWS = 256
ROUNDINGS = (0, 7, 5, 4, 3)  # bits kept of the mantissa; 0: all
SHORT = ["train.steps=400", "loss.distillation.teacher_steps=120", "train.warmup_steps=40"]


def timed(work: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def packed_copy(source: Store, target: Path, name: str, codec: str, keep_bits: int) -> Store:
    """A store with the rows of partition 0 and one feature, its large arrays packed so; no values yet."""
    store = Store.create(target, source.rows_per_partition)
    store.add_rows(source.rows(0))
    store.ensure_feature(repacked(source, name, codec, keep_bits))
    return store


def repacked(source: Store, name: str, codec: str, keep_bits: int) -> FeatureSpec:
    """The feature's spec with its large float arrays packed and rounded so."""
    spec = source.spec(name)
    arrays = {
        key: replace(array, codec=codec, keep_bits=keep_bits) if is_large(array) else array
        for key, array in spec.arrays.items()
    }
    return replace(spec, arrays=arrays)


def is_large(array: ArraySpec) -> bool:
    """Whether an array is one that codecs are for: states and latents, not lengths."""
    return array.dtype in MANTISSA_BITS


def measure(source: Store, folder: Path, name: str, codec: str, keep_bits: int) -> dict[str, float]:
    """Bytes a row, seconds of each operation (medians), and the largest relative error of a normal number."""
    values, rows = source.read_partition(name, 0), source.rows(0)
    receipt = source.receipt(name, 0)
    missing = receipt.missing if receipt else {}
    times: dict[str, list[float]] = {"write": [], "read": [], "read a row": []}
    rng = np.random.default_rng(0)
    store = None
    for number in range(REPEATS):
        path = folder / f"{number}.zarr"
        shutil.rmtree(path, ignore_errors=True)
        store = packed_copy(source, path, name, codec, keep_bits)
        times["write"].append(timed(lambda s=store: s.write_partition(name, 0, values, missing)))
        opened = Store.open(path)
        times["read"].append(timed(lambda s=opened: s.read_partition(name, 0)))
        places = rng.permutation(len(rows))[:SINGLE_ROWS]
        opened.read(name, places)  # the first touch opens files and checks
        times["read a row"].append(timed(lambda s=opened, p=places: s.read(name, p)))
    assert store is not None
    stored, receipt = store.read_partition(name, 0), store.receipt(name, 0)
    assert receipt is not None
    large = [key for key, array in store.spec(name).arrays.items() if is_large(array)]
    return {
        "bytes a row": sum(receipt.shards[key].bytes for key in large) / len(rows),
        "error": max(relative_error(stored[key], values[key], store.spec(name).arrays[key].dtype) for key in large),
        **{key: statistics.median(taken) for key, taken in times.items()},
    }


def relative_error(stored: np.ndarray, exact: np.ndarray, dtype: str) -> float:
    """Largest |stored - exact| / |exact| over the numbers that are normal in `dtype`."""
    if dtype == "bfloat16":
        stored, exact = bfloat16_to_float32(stored), bfloat16_to_float32(exact)
        smallest = float(np.finfo(np.float32).tiny)
    else:
        smallest = float(np.finfo(exact.dtype).tiny)
    wide, reference = stored.astype(np.float64), exact.astype(np.float64)
    normal = np.abs(reference) >= smallest
    return float(np.max(np.abs(wide - reference)[normal] / np.abs(reference)[normal], initial=0.0))


def codec_table(source: Store, folder: Path) -> Iterator[str]:
    """Markdown: every feature under every codec, and rounded ones under the best packer."""
    yield "| feature | codec | bits kept | bytes a row | write | read whole | read rows | largest relative error |"
    yield "|---" * 8 + "|"
    for name, spec in source.features().items():
        most = max(MANTISSA_BITS[array.dtype] for array in spec.arrays.values() if is_large(array))
        plans = [(codec, 0) for codec in CODECS]
        plans += [(codec, bits) for bits in ROUNDINGS if 0 < bits < most for codec in ("blosc-bitshuffle", "pcodec")]
        base: dict[str, float] = {}
        for codec, bits in plans:
            costs = measure(source, folder, name, codec, bits)
            base = base or costs
            speeds = [f"{base[key] / costs[key]:.2f}" for key in ("write", "read", "read a row")]
            cells = [name, codec, str(bits or most), f"{costs['bytes a row']:,.0f}", *speeds, f"{costs['error']:.1e}"]
            yield f"| {' | '.join(cells)} |"
        speeds = ", ".join(
            f"{key} {base['bytes a row'] * len(source.rows(0)) / 1e6 / base[key]:,.0f}" for key in ("write", "read")
        )
        yield f"| | | | | | | | raw is, in MB/s: {speeds} |"


def rounded_copy(source: Store, target: Path, bits: int) -> None:
    """A store with the same rows, data sets and assets, and the states of prompts rounded to so many bits."""
    store = Store.create(target, source.rows_per_partition)
    store.add_rows(source.rows())
    for dataset in source.datasets():
        store.set_members(dataset, (row.tobytes() for row in source.row_ids()[source.members(dataset)]))
    for name in states(source):
        store.ensure_feature(repacked(source, name, "raw", bits))
        for partition in store.pending(name):
            receipt = source.receipt(name, partition)
            missing = receipt.missing if receipt else {}
            store.write_partition(name, partition, source.read_partition(name, partition), missing)
    for spec in source.assets().values():
        store.write_asset(spec, source.read_asset(spec.name))


def states(source: Store) -> list[str]:
    """Features of prompts."""
    return [name for name in source.features() if not name.startswith("vae.")]


def training_table(arguments: list[str], folder: Path) -> Iterator[str]:
    """Markdown: losses on the exact validation rows after the same training on copies with rounded states."""
    exact = load_config(arguments[0], [*SHORT, *arguments[1:]])
    source = Store.open(exact.store.path)
    header: list[str] = []
    for bits in ROUNDINGS:
        target, run = folder / f"rounded-{bits}.zarr", folder / f"run-{bits}"
        for path in (target, run):
            shutil.rmtree(path, ignore_errors=True)
        rounded_copy(source, target, bits)
        rounding = [f"text.keep_bits={bits}", f"llm.keep_bits={bits if bits < MANTISSA_BITS['bfloat16'] else 0}"]
        fit(load_config(arguments[0], [*SHORT, *arguments[1:], f"run_dir={run}", f"store.path={target}", *rounding]))
        training = build_training(source, exact)
        newest, held_back = RunFolder(run).latest_checkpoint(), open_validation(source, exact, None)
        assert newest is not None and held_back is not None
        load_checkpoint(newest, training)
        losses = validate(held_back, exact, training)
        if not header:
            header = list(losses)
            yield "| bits kept | " + " | ".join(header) + " |"
            yield "|---" * (len(header) + 1) + "|"
        yield f"| {bits or 'all'} | " + " | ".join(f"{losses[key]:.4f}" for key in header) + " |"


def main() -> int:
    """Print both tables."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    arguments, folder = [sys.argv[1], *sys.argv[3:]], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    source = Store.open(load_config(arguments[0], arguments[1:]).store.path)
    for table in (codec_table(source, folder), training_table(arguments, folder)):
        for line in table:
            print(line, flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
