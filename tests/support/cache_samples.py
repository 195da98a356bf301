"""A small deterministic extraction that the cache's tests run, kill and run again (also as a script)."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sur.cache import ArraySpec, FeatureSpec, RowRecord, Selection, Store, float32_to_bfloat16, row_id

ROWS_PER_PARTITION = 8
STATES = FeatureSpec(
    "llm.small.l03.mean",
    "llm",
    {"model": "small", "layer": 3, "template": None},
    {"states": ArraySpec("bfloat16", (300,)), "length": ArraySpec("int32", ())},
)
LATENTS = FeatureSpec("vae.small.64", "vae", {"resolution": 64}, {"mean": ArraySpec("float16", (2, 4, 8, 8))})
NULL = FeatureSpec("null", "text", {"model": "small"}, {"states": ArraySpec("float32", (5, 7))})

ALL = Selection(split="all")


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk():
    """Without fsync: it guards against loss of power, which no test can cause, and a busy disk takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def sample_rows(count: int, first: int = 0) -> list[RowRecord]:
    """Distinct rows; every third has an image."""
    rows = []
    for number in range(first, first + count):
        simple, complex, image = f"a simple prompt {number}", f"complex é, {number}", f"{number}.png"
        content = image.encode() if number % 3 == 0 else None
        rows.append(RowRecord(row_id(simple, complex, content), simple, complex, image if content else ""))
    return rows


def sample_values(spec: FeatureSpec, rows: list[RowRecord]) -> dict[str, np.ndarray]:
    """Values that depend on the feature and the row alone, as stored elements."""
    values = {}
    for name, array in spec.arrays.items():
        out = []
        for row in rows:
            seed = hashlib.sha256(f"{spec.name}/{name}".encode() + row.id).digest()[:8]
            draw = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "little"))).normal(size=array.shape)
            if array.dtype == "bfloat16":
                out.append(float32_to_bfloat16(draw.astype(np.float32)))
            else:
                out.append(np.asarray(draw * 50, dtype=array.dtype))
        values[name] = np.stack(out)
    return values


def missing_rows(spec: FeatureSpec, rows: list[RowRecord]) -> dict[int, str]:
    """Latents are missing where there is no image."""
    return {i: "no image" for i, row in enumerate(rows) if spec is LATENTS and not row.image}


def extract(path: Path | str, count: int = 28) -> list[tuple[str, int]]:
    """Bring the store at `path` to its full state; returns the partitions that were computed."""
    store = Store.open_or_create(path, ROWS_PER_PARTITION)
    store.add_rows(sample_rows(count))
    computed = []
    for spec in (STATES, LATENTS):
        store.ensure_feature(spec)
    for spec in (STATES, LATENTS):
        for wait in (False, True):
            for partition in store.pending(spec.name):
                with store.claim(spec.name, partition, wait=wait) as ours:
                    if ours:
                        rows = store.rows(partition)
                        values, missing = sample_values(spec, rows), missing_rows(spec, rows)
                        store.write_partition(spec.name, partition, values, missing, {"rows": len(rows)})
                        computed.append((spec.name, partition))
    if not store.has_asset(NULL):
        store.write_asset(NULL, {"states": np.arange(35, dtype=np.float32).reshape(5, 7)})
    return computed


def file_bytes(path: Path) -> dict[str, bytes]:
    """Every file below `path` with its bytes."""
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def kill_after(process: subprocess.Popen[str], files: Callable[[], int], enough: int) -> bool:
    """SIGKILL a writer once there are `enough` files; whether it died of that, not having ended before."""
    while process.poll() is None and files() < enough:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def expected_work(path: Path, partitions: int = 4) -> list[tuple[str, int]]:
    """Partitions that the next run has to compute."""
    everything = [(spec.name, partition) for spec in (STATES, LATENTS) for partition in range(partitions)]
    try:
        store = Store.open(path)
        return [item for item in everything if item[1] not in done_partitions(store, item[0])]
    except Exception:
        return everything


def done_partitions(store: Store, name: str) -> list[int]:
    """Partitions of a feature, if it exists at all, that have a receipt."""
    if name not in store.features():
        return []
    return [partition for partition, receipt in enumerate(store.receipts(name)) if receipt is not None]


if __name__ == "__main__":
    json.dump(extract(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
