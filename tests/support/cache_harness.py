"""Kill a writer before every file operation, and damage every kind of file: what the tests sample, in full.

python tests/support/cache_harness.py crash FOLDER [STEP]     every STEP-th file operation of every scenario
python tests/support/cache_harness.py corrupt FOLDER [N]      N random faults
python tests/support/cache_harness.py lose FOLDER [N]         N losses of a file or a folder
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
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from cache_samples import LATENTS, NULL, STATES, expected_work, extract, file_bytes, sample_rows, sample_values

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
                            read = batch.arrays[f"{spec.name}/states"].view(torch.uint16).numpy()
                        assert np.array_equal(read, values), (
                            f"wrong numbers of {spec.name} were served ({reader.__name__})"
                        )
                served += 1
            except CacheError:
                pass
    return served


def lose(folder: Path, count: int) -> dict[str, int]:
    """Take one file or folder away so often: every operation gives all rows and right numbers, or a CacheError."""
    os.fsync = lambda descriptor: None
    path, outcomes = folder / "store", {"right": 0, "refused": 0, "mended": 0}
    lose_work(path)
    whole, generator = file_bytes(path), random.Random(0)
    places = sorted({*whole, *(parent.as_posix() for name in whole for parent in Path(name).parents)} - {"."})
    order = [place for _ in range(1 + count // len(places)) for place in generator.sample(places, len(places))]
    for number, place in enumerate(order[:count]):
        emptied = generator.random() < 0.5
        for operation in LOSE_OPERATIONS:
            _take(path / place, emptied)
            try:
                operation(path)
                outcomes["right"] += 1
            except CacheError as error:
                assert len(str(error)) > 20, f"{error!r} names no remedy"
                outcomes["refused"] += 1
            except Exception as error:
                error.add_note(f"loss {number}: {place} {'emptied' if emptied else 'removed'}, {operation.__name__}")
                raise
            if operation is mend:
                outcomes["mended"] += file_bytes(path) == whole
            _restore(path, whole)
    return outcomes


def lose_work(path: Path) -> None:
    """A store with two data sets, each of which has rows of its own."""
    work(path)
    Store.open(path, writable=True).set_members("other", [row.id for row in sample_rows(ROWS)][:5])


def _take(path: Path, emptied: bool) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if emptied:
        path.mkdir()


def read_rows(path: Path) -> None:
    """All rows, in their order."""
    store = Store.open(path)
    assert [(row.id, row.simple) for row in store.rows()] == [(row.id, row.simple) for row in sample_rows(ROWS)]
    assert store.n_rows == ROWS == int(store.filled().sum())


def read_dataset(path: Path) -> None:
    """The rows of both data sets, and values at them."""
    for name, expected in (("data", sample_rows(ROWS)[3:]), ("other", sample_rows(5))):
        store = Store.open(path)
        slots = np.flatnonzero(store.members(name))
        rows = {row.slot: row for row in store.rows()}
        assert [rows[slot].id for slot in slots.tolist()] == [row.id for row in expected]
        for array, values in store.read(STATES.name, slots).items():
            assert np.array_equal(values, sample_values(STATES, expected)[array])
    assert np.array_equal(store.read_asset(NULL.name)["states"].reshape(-1), np.arange(35, dtype=np.float32))


def load(path: Path) -> None:
    """A loader over a data set has all of its rows that have a value."""
    for spec in (STATES, LATENTS):
        store = Store.open(path)
        loader = Loader(store, [spec.name], batch_size=1, selection=Selection("data", "all"))
        expected = {row.id for row in sample_rows(ROWS)[3:] if spec is STATES or row.image}
        assert {row.tobytes() for row in loader.ids} == expected
        rows = {row.slot: row for row in store.rows()}
        for batch in loader.batches():
            read = next(batch.arrays[key] for key in batch.arrays if not key.endswith("length"))
            values = sample_values(spec, [rows[slot] for slot in batch.slots.tolist()])
            bits = read.view(torch.uint16) if spec is STATES else read
            assert np.array_equal(bits.numpy(), values["states" if spec is STATES else "mean"])


def check(path: Path) -> None:
    """A verification finds the loss."""
    assert Store.open(path, recover=True).verify()


def mend(path: Path) -> None:
    """A repair and the next extractions bring everything back, or the repair names what it cannot mend."""
    store = Store.open(path, writable=True, recover=True)
    beyond = store.repair(store.verify(), sample_rows(ROWS))
    if beyond:
        raise CacheError(f"beyond repair: {beyond}")
    for read in (read_rows, read_dataset, load):
        with suppress(CacheError):  # some values may have to be computed first
            read(path)
    lose_work(path)
    for read in (read_rows, read_dataset, load):
        read(path)
    assert Store.open(path).verify() == []


def grow(path: Path) -> None:
    """New rows are added behind all others, which stay."""
    store = Store.open(path, writable=True)
    store.add_rows(sample_rows(9, first=500))
    expected = [row.id for row in (*sample_rows(ROWS), *sample_rows(9, first=500))]
    assert [row.id for row in Store.open(path).rows()] == expected


def resume(path: Path) -> None:
    """Another extraction brings everything to its end."""
    lose_work(path)
    for read in (read_rows, read_dataset, load):
        read(path)


def pack(path: Path) -> None:
    """A compacted store has every row of every data set, and right values where it has any."""
    target = Store.create(path.parent / "packed", 8)
    try:
        compact(Store.open(path), target)
        expected = [row.id for row in sample_rows(ROWS)]
        assert [row.id for row in target.rows()] == expected
        for name, members in (("data", expected[3:]), ("other", expected[:5])):
            assert [expected[slot] for slot in np.flatnonzero(target.members(name)).tolist()] == members
        assert target.features().keys() == {STATES.name, LATENTS.name}
        assert target.has_asset(NULL) == Store.open(path).has_asset(NULL)
        done = [p for p, receipt in enumerate(target.receipts(STATES.name)) if receipt is not None]
        for partition in done:
            values = sample_values(STATES, target.rows(partition))["states"]
            assert np.array_equal(target.read_partition(STATES.name, partition)["states"], values)
    finally:
        shutil.rmtree(target.path)


LOSE_OPERATIONS = (read_rows, read_dataset, load, check, mend, grow, resume, pack)


def _restore(path: Path, whole: dict[str, bytes]) -> None:
    shutil.rmtree(path)
    for name, data in whole.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


if __name__ == "__main__":
    logging.getLogger("sur.cache").setLevel(logging.ERROR)  # no warnings of damage that is made on purpose
    target, amount = Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None
    modes = {"crash": (crash, 1), "corrupt": (corrupt, 1000), "lose": (lose, 300)}
    run, usual = modes[sys.argv[1]]
    json.dump(run(target, amount or usual), sys.stdout)
