"""Killed, full, or in each other's way: the store ends as if nothing had happened."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import cache_harness
import cache_samples
import pytest
from cache_samples import (
    STATES,
    expected_work,
    extract,
    file_bytes,
    kill_after,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
    sample_values,
)

from sur.cache import CacheError, DiskFull, NotWritable, Store, StoreBusy
from sur.cache.format.checksum import with_crc
from sur.cache.storage import local


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    extract(path)
    return file_bytes(path)


def command(module: ModuleType, *arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", str(module.__file__), *map(str, arguments)]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def start(path: Path, count: int = 28) -> subprocess.Popen[str]:
    arguments = command(cache_samples, path, count)
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def number_of_files(path: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(path))


def test_sigkill_at_random_moments_then_resume_gives_the_same_bytes(tmp_path, whole):
    generator = random.Random(7)
    path, kills = tmp_path / "store.zarr", 0
    for _ in range(6):
        enough = number_of_files(path) + generator.randrange(1, len(whole) // 6)
        kills += kill_after(start(path), lambda: number_of_files(path), enough)
    assert kills >= 3
    pending = expected_work(path)
    output, _ = start(path).communicate()
    assert [tuple(item) for item in json.loads(output)] == pending
    assert file_bytes(path) == whole
    assert Store.open(path).verify() == []


@pytest.mark.slow
def test_sigkill_between_file_operations_then_the_same_again_gives_the_same_bytes(tmp_path):
    """A sample; `python tests/support/cache_harness.py crash FOLDER` takes every file operation of every scenario."""
    done = subprocess.run(
        command(cache_harness, "crash", tmp_path, 23), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    )
    kills = json.loads(done.stdout)
    assert set(kills) == {"fresh", "resume", "append", "repair", "compact"} and min(kills.values()) >= 2
    assert sum(kills.values()) >= 50


@pytest.mark.slow
def test_damage_anywhere_is_found_never_served_and_mended(tmp_path):
    """A sample; `python tests/support/cache_harness.py corrupt FOLDER 1000` takes a thousand."""
    done = subprocess.run(
        command(cache_harness, "corrupt", tmp_path, 60), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert json.loads(done.stdout)["found"] == 60


@pytest.mark.slow
def test_a_lost_file_or_folder_gives_all_rows_or_an_error_in_every_operation(tmp_path):
    """A sample; `python tests/support/cache_harness.py lose FOLDER 300` takes three hundred."""
    done = subprocess.run(
        command(cache_harness, "lose", tmp_path, 16), env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    )
    outcomes = json.loads(done.stdout)
    assert outcomes["right"] + outcomes["refused"] == 16 * 8 and outcomes["right"] >= 16 and outcomes["mended"] >= 8


@pytest.mark.parametrize("writers", [2, 4])
def test_writers_at_once_half_of_them_killed_lose_nothing_and_leave_no_lock(tmp_path, whole, writers):
    generator = random.Random(writers)
    path = tmp_path / "store.zarr"
    processes = [start(path) for _ in range(writers)]
    for process in processes[: writers // 2]:
        kill_after(process, lambda: number_of_files(path), generator.randrange(1, len(whole)))
    finished = [process.communicate()[0] for process in processes[writers // 2 :]]
    computed = [tuple(item) for output in finished for item in json.loads(output)]
    assert len(computed) == len(set(computed))
    pending = expected_work(path)
    output, _ = start(path).communicate()
    assert [tuple(item) for item in json.loads(output)] == pending
    assert file_bytes(path) == whole


def test_processes_at_once_lose_nothing_and_do_nothing_twice(tmp_path, whole):
    path = tmp_path / "store.zarr"
    processes = [start(path) for _ in range(3)]
    computed = [tuple(item) for process in processes for item in json.loads(process.communicate()[0])]
    assert sorted(computed) == sorted(set(computed)) and len(computed) == 8
    assert file_bytes(path) == whole


def test_processes_adding_overlapping_rows_lose_and_repeat_none(tmp_path):
    path = tmp_path / "store.zarr"
    for process in [start(path, count) for count in (20, 28, 12)]:
        process.communicate()
    store = Store.open(path)
    assert sorted(row.id for row in store.rows()) == sorted(row.id for row in sample_rows(28))
    assert store.pending(STATES.name) == []
    assert store.verify() == []


def test_a_claimed_partition_is_busy_for_others_and_free_after(tmp_path):
    extract(tmp_path / "s.zarr", 16)
    first = Store.open(tmp_path / "s.zarr", writable=True)
    second = Store.open(tmp_path / "s.zarr", writable=True)
    first.discard(STATES.name, 1)
    values = sample_values(STATES, first.rows(1))
    with first.claim(STATES.name, 1) as ours:
        assert ours
        with second.claim(STATES.name, 1) as theirs:
            assert not theirs
        with pytest.raises(StoreBusy, match="partition 1"):
            second.write_partition(STATES.name, 1, values)
        with pytest.raises(StoreBusy, match="being written"):
            second.drop_feature(STATES.name)
    receipt = second.write_partition(STATES.name, 1, values)
    assert first.write_partition(STATES.name, 1, values) == receipt


def test_an_abandoned_claim_leaves_no_trace(tmp_path):
    extract(tmp_path / "s.zarr", 8)
    store = Store.open(tmp_path / "s.zarr", writable=True)
    store.add_rows(sample_rows(8, first=100))
    with pytest.raises(RuntimeError), store.claim(STATES.name, 1):
        raise RuntimeError("the encoder failed")
    assert not (store.path / "receipts/features" / STATES.name / "00001").exists()
    assert store.pending(STATES.name) == [1]


@pytest.mark.parametrize("room", [0, 3, 10, 17, 25])
def test_full_disk_is_named_and_the_same_command_resumes(tmp_path, whole, monkeypatch, room):
    left = [room]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "store.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(local.os, "fsync", fsync)
        with pytest.raises((DiskFull, OSError), match="space"):
            extract(path)
    assert not list(path.rglob("*.partial"))
    extract(path)
    assert file_bytes(path) == whole


def test_bytes_that_do_not_read_back_are_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(local.os, "fsync", lambda descriptor: os.pwrite(descriptor, b"other", 0))  # a bad disk
    with pytest.raises(CacheError, match="read back differ"):
        local.LocalStorage(tmp_path).publish("file", b"data")
    assert not (tmp_path / "file").exists()


def test_a_valid_chunk_in_another_s_place_does_not_read_back(tmp_path, monkeypatch):
    pieces = [part for row in (b"one" * 99, b"two" * 99) for part in (row, with_crc(row)[-4:])]
    swapped = b"".join(pieces[2:] + pieces[:2])
    monkeypatch.setattr(local.os, "fsync", lambda descriptor: os.pwrite(descriptor, swapped, 0))
    with pytest.raises(CacheError, match="read back differ"):
        local.LocalStorage(tmp_path).publish("file", *pieces)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_disk_that_may_not_be_written_is_named_and_the_same_command_resumes(tmp_path, whole, monkeypatch, number):
    path, left = tmp_path / "store.zarr", [9]
    replace = os.replace

    def refused(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number))
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(local.os, "replace", refused)
        with pytest.raises(NotWritable, match="give this user the right to write there"):
            extract(path)
    extract(path)
    assert file_bytes(path) == whole


def test_a_clock_going_backwards_changes_nothing(tmp_path, whole, monkeypatch):
    now = [2e9]

    def earlier() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    extract(tmp_path / "store.zarr", 12)
    path = tmp_path / "other.zarr"
    extract(path)
    for file in path.rglob("*"):
        os.utime(file, (1, 1))
    assert extract(path) == [] and file_bytes(path) == whole
