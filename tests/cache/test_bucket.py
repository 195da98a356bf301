"""A store in object storage: a real S3 server on loopback, the same guarantees and the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import cache_samples
import numpy as np
import pytest
import tensorstore
import zarr
from cache_samples import (
    ALL,
    LATENTS,
    NULL,
    STATES,
    extract,
    file_bytes,
    kill_after,
    no_waiting_for_the_disk,  # noqa: F401
    sample_values,
)
from moto.server import ThreadedMotoServer
from zarr.storage import ObjectStore

from sur.cache import CacheError, CorruptStore, Loader, Resident, Store, StoreBusy, Windowed
from sur.cache.storage import bucket
from sur.cache.storage.bucket import BucketStorage

BUCKET = "features"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of an S3 server with one bucket; credentials lie in the environment, as a user's would."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3", region_name="us-east-1", endpoint_url=url).create_bucket(Bucket=BUCKET)
        yield url
    server.stop()


@pytest.fixture
def quick_lease(monkeypatch) -> None:
    monkeypatch.setattr(bucket, "LEASE_SECONDS", 1.2)


class Clock:
    """The lease's clock, which goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bucket, "_clock", lambda: clock.now)
    monkeypatch.setattr(bucket, "_pause", clock.advance)
    return clock


@pytest.fixture
def location(server, request) -> str:
    return f"s3://{BUCKET}/{request.node.name}"


def objects(location: str) -> dict[str, bytes]:
    storage = BucketStorage(location)
    return {key: storage.read(key) or b"" for key in storage.files()}


def test_the_store_in_a_bucket_is_byte_for_byte_the_one_on_disk(location, tmp_path):
    extract(tmp_path / "local.zarr")
    assert len(extract(location)) == 8
    assert objects(location) == file_bytes(tmp_path / "local.zarr")
    assert extract(location) == []
    assert Store.open(location).verify() == []


def test_reads_match_zarr_and_tensorstore_reading_the_same_bucket(location, server):
    extract(location)
    store = Store.open(location)
    ours = store.read(STATES.name)["states"]
    assert np.array_equal(ours, sample_values(STATES, store.rows())["states"])
    assert np.array_equal(store.read(STATES.name, np.array([17, 3]))["states"], ours[[17, 3]])
    group = zarr.open_group(ObjectStore(BucketStorage(location).store, read_only=True), mode="r")
    assert np.array_equal(group[f"features/{STATES.name}/states"][: len(ours)], ours)  # pyright: ignore
    kvstore = {
        "driver": "s3",
        "bucket": BUCKET,
        "path": f"{location.removeprefix(f's3://{BUCKET}/')}/features/{STATES.name}/states/",
        "endpoint": server,
        "aws_region": "us-east-1",
    }
    other = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result().read().result()
    assert np.array_equal(other[: len(ours)], ours)
    assert np.array_equal(store.read_asset(NULL.name)["states"], np.arange(35, dtype=np.float32).reshape(5, 7))


def test_the_loader_serves_a_bucket(location):
    extract(location)
    store = Store.open(location)
    rows = store.rows()
    for reader in (Resident, Windowed):
        for batch in Loader(store, [LATENTS.name], batch_size=3, selection=ALL, reader=reader).batches():
            expected = sample_values(LATENTS, [rows[slot] for slot in batch.slots])["mean"]
            assert np.array_equal(batch.arrays[f"{LATENTS.name}/mean"].numpy(), expected)


def start(location: str) -> subprocess.Popen[str]:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import json;"
        "import sur.cache.storage.bucket as b; b.LEASE_SECONDS = 1.2;"
        "import cache_samples; json.dump(cache_samples.extract(sys.argv[2]), sys.stdout)"
    )
    folder = Path(cache_samples.__file__).parent
    environment = os.environ | {"PYTHONPATH": str(folder.parents[1])}
    command = [sys.executable, "-c", code, str(folder), location]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_writer_costs_its_work_in_flight_and_leaves_no_lock_that_needs_a_human(
    location, tmp_path, quick_lease
):
    extract(tmp_path / "local.zarr")
    whole = file_bytes(tmp_path / "local.zarr")
    killed = 0
    for enough in (12, 25, 40):
        killed += kill_after(start(location), lambda: len(list(BucketStorage(location).files())), enough)
    assert killed >= 2
    extract(location)
    left = objects(location)
    assert {key for key in left if not key.endswith("/lock")} == set(whole)
    assert all(left[key] == data for key, data in whole.items())
    assert Store.open(location).verify() == []  # a dead lock is no damage: who wants it takes it over


@pytest.mark.slow
def test_processes_at_once_lose_nothing_and_do_nothing_twice(location, tmp_path):
    extract(tmp_path / "local.zarr")
    processes = [start(location) for _ in range(2)]
    computed = [tuple(item) for process in processes for item in json.loads(process.communicate()[0])]
    assert sorted(computed) == sorted(set(computed)) and len(computed) == 8
    assert objects(location) == file_bytes(tmp_path / "local.zarr")


def test_a_lock_is_exclusive_and_a_dead_holders_is_taken_over(location, clock):
    ours, theirs = BucketStorage(location), BucketStorage(location)
    with ours.locked("receipts/x", wait=True) as held:
        assert held and theirs.busy("receipts/x")
        for _ in range(12):  # two leases long its holder keeps it alive
            with theirs.locked("receipts/x", wait=False) as second:
                assert not second
            clock.advance(bucket.LEASE_SECONDS / 6)
            ours.leases[0].renew()
        ours.publish("features/x/c.0", b"ours")
    dead = BucketStorage(location).acquire("receipts/y/lock", "dead")
    assert dead
    began = clock.now
    with theirs.locked("receipts/y", wait=True) as held:
        assert held and clock.now - began > bucket.LEASE_SECONDS
    assert theirs.read("receipts/y/lock") is None


def test_a_held_lock_is_renewed_by_itself(location, quick_lease):
    storage = BucketStorage(location)
    put, beaten = bucket.obstore.put, threading.Semaphore(0)

    def heard(store, key, body, **options):
        done = put(store, key, body, **options)
        if b'"beat"' in bytes(body):
            beaten.release()
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket.obstore, "put", heard)
        with storage.locked("receipts/x", wait=True):
            assert all(beaten.acquire(timeout=60) for _ in range(8))  # longer than a lease
            with BucketStorage(location).locked("receipts/x", wait=False) as second:
                assert not second


def test_who_lost_its_lock_writes_nothing(location, clock):
    ours, theirs = BucketStorage(location), BucketStorage(location)
    with ours.locked("receipts/x", wait=True):
        theirs.remove("receipts/x/lock")
        ours.leases[0].renew()
        with pytest.raises(StoreBusy, match="Run the same command again"):
            ours.publish("features/x/c.0", b"stale")
    assert ours.read("features/x/c.0") is None


def test_who_cannot_renew_its_lock_waits_and_has_not_lost_it(location, clock, monkeypatch):
    storage = BucketStorage(location)
    with storage.locked("receipts/x", wait=True):
        with monkeypatch.context() as patch:
            away = bucket.GenericError("the network is away")

            def unreachable(*_arguments, **_options):
                raise away

            patch.setattr(bucket.obstore, "put", unreachable)
            clock.advance(bucket.LEASE_SECONDS * 0.6)
            with pytest.raises(bucket.GenericError):
                storage.leases[0].renew()
            with pytest.raises(StoreBusy, match="could not be renewed in time"):
                storage.publish("features/x/c.0", b"too early")
            patch.setattr(bucket.obstore, "put", lambda *_a, **_o: (_ for _ in ()).throw(bucket.PreconditionError("?")))
            patch.setattr(bucket.obstore, "get", unreachable)
            with pytest.raises(bucket.GenericError):
                storage.leases[0].renew()  # neither ours nor another's: not known
        storage.leases[0].renew()
        storage.publish("features/x/c.0", b"ours again")
    assert storage.read("features/x/c.0") == b"ours again" and storage.read("receipts/x/lock") is None


def test_a_lock_that_cannot_be_given_back_is_said_and_hides_no_error(location, clock, monkeypatch, caplog):
    def unreachable(*_arguments, **_options):
        raise bucket.GenericError("the network is away")

    storage = BucketStorage(location)
    with pytest.raises(RuntimeError, match="the encoder failed"), storage.locked("receipts/x", wait=True):
        monkeypatch.setattr(bucket.obstore, "get", unreachable)
        raise RuntimeError("the encoder failed")
    assert "could not be released: the network is away" in caplog.text


def test_a_damaged_object_is_found_by_verify_and_on_reading(location):
    extract(location)
    key = f"features/{STATES.name}/states/c.1.0"
    storage = BucketStorage(location)
    data = bytearray(storage.read(key) or b"")
    data[2000] ^= 4
    storage.publish(key, data)
    (damage,) = Store.open(location).verify()
    assert (damage.feature, damage.partition, damage.file) == (STATES.name, 1, key)
    with pytest.raises(CorruptStore, match="checksum"):
        Store.open(location).read(STATES.name)


def test_secrets_are_in_no_object_and_no_message(location):
    extract(location)
    assert not any(b"very-secret" in data for data in objects(location).values())
    with pytest.raises(CacheError, match="holds no feature store") as error:
        Store.open(f"s3://{BUCKET}/nothing-here")
    assert "very-secret" not in str(error.value)


def test_a_beat_that_was_under_way_during_a_long_pause_does_not_pass_for_a_renewal(location, clock, monkeypatch):
    storage = BucketStorage(location)
    put = bucket.obstore.put

    def slow(store, key, body, **options):
        if b'"beat"' in bytes(body):
            clock.advance(bucket.LEASE_SECONDS * 2 / 3)  # frozen between sending and hearing
        return put(store, key, body, **options)

    monkeypatch.setattr(bucket.obstore, "put", slow)
    with storage.locked("receipts/x", wait=True):
        storage.leases[0].renew()
        with pytest.raises(StoreBusy, match="could not be renewed in time"):
            storage.publish("features/x/c.0", b"stale")


def test_a_renewal_whose_answer_was_lost_is_no_loss_of_the_lock(location, clock, monkeypatch):
    storage = BucketStorage(location)
    put, lost = bucket.obstore.put, []

    def unheard(store, key, body, **options):
        done = put(store, key, body, **options)
        if b'"beat"' in bytes(body) and not lost:
            lost.append(1)
            raise bucket.PreconditionError("the answer was lost, the repetition found a new ETag")
        return done

    monkeypatch.setattr(bucket.obstore, "put", unheard)
    with storage.locked("receipts/x", wait=True):
        for _ in range(3):
            clock.advance(bucket.LEASE_SECONDS / 6)
            storage.leases[0].renew()
        storage.publish("features/x/c.0", b"ours")
    assert lost and storage.read("features/x/c.0") == b"ours" and storage.read("receipts/x/lock") is None


def test_places_that_are_none_are_named(server):
    with pytest.raises(CacheError, match="is not a location for a store"):
        Store.open("s4://x/y")
    with pytest.raises(CacheError, match="nothing-like-it"):
        Store.open("s3://nothing-like-it/store")


def test_without_its_package_it_is_said_which_one_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sur.cache.storage.bucket", None)
    with pytest.raises(CacheError, match="pip install obstore"):
        Store.open("s3://bucket/store.zarr")
