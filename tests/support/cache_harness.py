"""Kill a writer before every file operation, and damage every kind of file: what the tests sample, in full.

python tests/support/cache_harness.py crash FOLDER [STEP]     every STEP-th file operation of every scenario
python tests/support/cache_harness.py corrupt FOLDER [N]      N random faults
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cache_samples import LATENTS, STATES, expected_work, extract, file_bytes, sample_rows, sample_values

from sur.cache import CacheError, Loader, Order, Resident, RowWise, Selection, Store, Windowed, compact

ROWS = 60
PARTITIONS = 8


def members(path: Path) -> None:
    """Give the store its data set, as an extraction does."""
    store = Store.open(path, writable=True)
    store.set_members("data", [row.id for row in store.rows()][3:])


def work(path: Path) -> None:
    """An extraction of everything."""
    extract(path, ROWS)
    members(path)


def half(path: Path) -> None:
    """A store in which some partitions are not done."""
    extract(path, ROWS)
    store = Store.open(path, writable=True)
    for partition in (0, 3, 4, 7):
        store.discard(STATES.name, partition)
    store.discard(LATENTS.name, 5)


def damaged(path: Path) -> None:
    """A store with damage in values, receipts and metadata."""
    work(path)
    for name in (
        f"features/{STATES.name}/states/c.2.0",
        f"receipts/features/{LATENTS.name}/00001/zarr.json",
        f"features/{LATENTS.name}/zarr.json",
        "features/zarr.json",
        "datasets/data/zarr.json",
    ):
        data = bytearray((path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data)


def repair(path: Path) -> None:
    """What a user does about damage."""
    store = Store.open(path, writable=True, recover=True)
    assert store.repair(store.verify()) == []
    work(path)


def compacted(path: Path) -> None:
    """The store beside the finished one, without the rows that its data set has not."""
    target = Store.open_or_create(path, 8)
    compact(Store.open(path.parent / "source"), target)


SCENARIOS: dict[str, tuple[Callable[[Path], None] | None, Callable[[Path], None]]] = {
    "fresh": (None, work),
    "resume": (half, work),
    "append": (lambda path: void(extract(path, 21)), work),
    "repair": (damaged, repair),
    "compact": (None, compacted),
}


def void(_value: object) -> None:
    """For lambdas."""


def kill_at(operation: int) -> None:
    """Have this process killed, for real, just before its file operation of that number."""
    done = 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal done
            done += 1
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in ("mkdir", "fsync", "replace", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def crash(folder: Path, step: int) -> dict[str, int]:
    """Kill a child at every `step`-th file operation of each scenario; complain on the first difference."""
    os.fsync = lambda descriptor: None  # a killed process loses nothing that the system already has
    work(folder / "source")
    kills = {}
    for scenario, (prepare, act) in SCENARIOS.items():
        start, whole = folder / f"{scenario}-start", folder / f"{scenario}-whole"
        if prepare is not None:
            prepare(start)
            shutil.copytree(start, whole)
        act(whole)
        expected = file_bytes(whole)
        kills[scenario] = 0
        for operation in range(1, 1_000_000, step):
            path = folder / f"{scenario}-{operation}"
            if prepare is not None:
                shutil.copytree(start, path)
            if (child := os.fork()) == 0:
                kill_at(operation)
                act(path)
                os._exit(0)
            survived = os.waitpid(child, 0)[1] == 0
            _check_rerun(scenario, act, path, expected, operation)
            shutil.rmtree(path)
            if survived:
                break
            kills[scenario] += 1
    return kills


def _check_rerun(scenario: str, act: Callable[[Path], None], path: Path, expected: dict, operation: int) -> None:
    where = f"{scenario}, operation {operation}"
    if act is work:
        pending = expected_work(path, PARTITIONS if scenario != "append" else 8)
        computed = extract(path, ROWS)
        assert computed == pending, f"{where}: computed {computed}, expected {pending}"
    act(path)
    stored = file_bytes(path)
    differing = sorted(name for name in {*stored, *expected} if stored.get(name) != expected.get(name))
    assert not differing, f"{where}: {differing} differ"


def corrupt(folder: Path, count: int) -> dict[str, int]:
    """Damage a file at random so often: verify must name it, no way of reading may serve it, repair must mend it."""
    os.fsync = lambda descriptor: None
    path = folder / "store"
    work(path)
    whole = file_bytes(path)
    names, generator = sorted(whole), random.Random(0)
    n_found = n_mended = served = 0
    for number in range(count):
        touched = _damage(path, whole, names[number % len(names)], generator)
        damages = Store.open(path, recover=True).verify()
        named = {damage.file for damage in damages}
        assert touched & named, f"fault {number} in {sorted(touched)} was not found"
        n_found += 1
        served += _serve(path)
        store = Store.open(path, writable=True, recover=True)
        if not store.repair(damages, sample_rows(ROWS)):
            work(path)
            assert file_bytes(path) == whole, f"fault {number} in {sorted(touched)} was not mended"
            n_mended += 1
        _restore(path, whole)
    return {
        "found": n_found,
        "mended": n_mended,
        "rows beyond repair": n_found - n_mended,
        "reads with right numbers": served,
    }


def _damage(path: Path, whole: dict[str, bytes], name: str, generator: random.Random) -> set[str]:
    """Flip a bit, cut, zero a block, or swap two files of one kind; returns the files touched."""
    data = bytearray(whole[name])
    kind = generator.choice(["flip", "flip", "cut", "zero", "swap"])
    others = [n for n in whole if n != name and n.count("/") == name.count("/") and whole[n] != whole[name]]
    others = [n for n in others if n.rpartition("/")[2][:2] == name.rpartition("/")[2][:2]]
    if kind == "swap" and others:
        other = generator.choice(others)
        (path / name).write_bytes(whole[other])
        (path / other).write_bytes(data)
        return {name, other}
    if kind == "cut":
        data = data[: generator.randrange(len(data))]
    elif kind == "zero":
        start = generator.randrange(len(data))
        block = slice(start, min(len(data), start + generator.choice([1, 64, 4096])))
        if not any(data[block]):
            block = slice(0, len(data))
        data[block] = bytes(len(data[block]))
    else:
        bit = generator.randrange(8 * len(data))
        data[bit // 8] ^= 1 << (bit % 8)
    (path / name).write_bytes(data)
    return {name}


def _serve(path: Path) -> int:
    """Read everything in every way; returns how many ways gave numbers, which must be right."""
    served = 0
    selection = Selection("data", "all")
    for reader, window in ((Resident, 0), (RowWise, 0), (Windowed, 2)):
        for spec in (STATES, LATENTS):
            try:
                store = Store.open(path)
                rows = {row.slot: row for row in store.rows()}
                order = Order(window=window)
                loader = Loader(store, [spec.name], batch_size=8, selection=selection, order=order, reader=reader)
                for batch in loader.batches():
                    expected = sample_values(spec, [rows[slot] for slot in batch.slots.tolist()])
                    for array, values in expected.items():
                        read = batch.arrays[f"{spec.name}/{array}"].numpy() if array != "states" else None
                        if read is None:
                            import torch

                            read = batch.arrays[f"{spec.name}/states"].view(torch.uint16).numpy()
                        assert np.array_equal(read, values), (
                            f"wrong numbers of {spec.name} were served ({reader.__name__})"
                        )
                served += 1
            except CacheError:
                pass
    return served


def _restore(path: Path, whole: dict[str, bytes]) -> None:
    shutil.rmtree(path)
    for name, data in whole.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


if __name__ == "__main__":
    logging.getLogger("cache").setLevel(logging.ERROR)  # no warnings of damage that is made on purpose
    target, amount = Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None
    json.dump(crash(target, amount or 1) if sys.argv[1] == "crash" else corrupt(target, amount or 1000), sys.stdout)
