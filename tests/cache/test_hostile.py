"""Files that nobody wrote by accident: every operation gives right rows or one CacheError, and soon."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_samples import (
    ALL,
    LATENTS,
    STATES,
    extract,
    no_waiting_for_the_disk,  # noqa: F401
    sample_rows,
)

from sur.cache import CacheError, CorruptStore, Loader, Store, compact
from sur.cache.format import metadata
from sur.cache.format.checksum import with_crc
from sur.cache.format.codecs import pack, unpack
from sur.cache.format.shard import Layout

STATES_RECEIPT = f"receipts/features/{STATES.name}/00001"
STATES_FOLDER = f"features/{STATES.name}"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "store.zarr"
    extract(path, 20)
    Store.open(path, writable=True).set_members("data", [row.id for row in sample_rows(20)])
    return path


@pytest.fixture
def path(pristine, tmp_path) -> Path:
    return shutil.copytree(pristine, tmp_path / "store.zarr")


def resealed(folder: str, **changes: Any) -> Change:
    """Replace values of a sealed document (a nested one by a.b), with the digest that then is right."""

    def change(path: Path) -> None:
        file = path / folder / "zarr.json"
        document = json.loads(file.read_text())
        content = document["attributes"]["sur_cache"] if folder == "" else document["attributes"]
        content.pop("digest")
        for name, value in changes.items():
            *parents, last = name.split("__")
            holder = content
            for parent in parents:
                holder = holder[parent]
            holder.pop(last, None) if value is ... else holder.update({last: value})
        place = folder if folder.split("/", maxsplit=1)[0] in ("features", "assets", "datasets") else ""
        sealed = metadata.seal(content, place)
        document["attributes"] = {"sur_cache": sealed} if folder == "" else sealed
        file.write_text(json.dumps(document))

    return change


def written(name: str, content: bytes) -> Change:
    """Put a file somewhere."""

    def change(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)

    return change


def instead(name: str, make: Callable[[Path], object]) -> Change:
    """Put something that is no file in the place of a file."""

    def change(path: Path) -> None:
        (path / name).unlink()
        make(path / name)

    return change


def full_folder(path: Path) -> None:
    path.mkdir()
    (path / "somebody's").write_bytes(b"x")


def texts(content: bytes) -> Change:
    """Prompts in other bytes, with the checksum and receipt that then are right."""

    def change(path: Path) -> None:
        data = with_crc(content)
        (path / "rows/simple/c.1").write_bytes(data)
        receipt = {"bytes": len(data), "crc32c": data[-4:][::-1].hex()}
        resealed("receipts/rows/00001", shards__simple=receipt)(path)

    return change


DEEP = b'{"attributes":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
EVERYWHERE = ("", "datasets/data", STATES_FOLDER, "receipts/rows/00001", STATES_RECEIPT, "rows/id", "assets/null")
CHANGES: dict[str, Change] = {
    **{
        f"a folder {name!r} in {parent}": (lambda path, place=f"{parent}/{name}": (path / place).mkdir(parents=True))
        for parent in ("receipts/rows", f"receipts/features/{STATES.name}", "features", "datasets", "assets")
        for name in ("²", "٣", "9" * 11, "9" * 25, "1", "A B", "x\x1b[2J", "-1")
    },
    **{
        f"{what} as {folder or 'root'}": written(f"{folder}/zarr.json".lstrip("/"), content)
        for folder in (*EVERYWHERE, "receipts/rows/99999", "features/²", f"receipts/features/{STATES.name}/77777")
        for what, content in (
            ("deep nesting", DEEP),
            ("NaN", b'{"attributes": {"x": NaN, "digest": "x"}, "shape": [NaN]}'),
            ("a list", b"[1]"),
            ("null", b'{"attributes": null}'),
            ("half a surrogate pair", b'{"attributes": {"a": "\\ud800"}}'),
            ("a long number", b'{"attributes": {"a": ' + b"9" * 10_000 + b"}}"),
            ("no bytes", b""),
            ("shapes that are none", b'{"attributes": {}, "shape": [{"a": 1}], "chunk_grid": []}'),
            ("a shape beyond all", b'{"attributes": {}, "shape": [1' + b"0" * 30 + b", 16]}"),
        )
    },
    **{
        f"{what} as {name}": instead(name, make)
        for name in ("zarr.json", "rows/id/c.1.0", f"{STATES_FOLDER}/states/c.1.0", f"{STATES_RECEIPT}/zarr.json")
        for what, make in (
            ("a fifo", os.mkfifo),
            ("a link to itself", lambda path: path.symlink_to(path)),
            ("an endless device", lambda path: path.symlink_to("/dev/zero")),
            ("a full folder", full_folder),
        )
    },
    **{
        f"rows_per_partition {size!r}": resealed("", rows_per_partition=size)
        for size in ("8", 0, -1, 10**12, None, ..., True, 8.0, [8])
    },
    **{f"format version {v!r}": resealed("", format_version=v) for v in ("3", None, ..., [], -1)},
    **{f"data sets {names!r}": resealed("", datasets=names) for names in (5, [1], ["../x"], {"a": 1}, None, ["²"])},
    **{
        f"declaration {changes!r}": resealed(STATES_FOLDER, **changes)
        for changes in (
            {"arrays": {}},
            {"arrays": ...},
            {"arrays": [1]},
            {"arrays": {"../x": {"dtype": "int8", "shape": [1]}}},
            {"arrays__states": 5},
            {"arrays__states__dtype": []},
            {"arrays__states__dtype": "complex"},
            {"arrays__states__shape": "ab"},
            {"arrays__states__shape": [10**30]},
            {"arrays__states__shape": [-1]},
            {"arrays__states__shape": None},
            {"arrays__states__codec": ["zstd"]},
            {"arrays__states__more": 1},
            {"arrays__states__keep_bits": "1"},
            {"kind": 5},
            {"kind": ...},
            {"identity": 5},
            {"identity": ...},
        )
    },
    **{
        f"{folder} {changes!r}": resealed(folder, **changes)
        for folder, array in (
            (STATES_RECEIPT, "states"),
            ("receipts/rows/00001", "id"),
            ("receipts/assets/null/00000", "states"),
        )
        for changes in (
            {f"shards__{array}__bytes": -1},
            {f"shards__{array}__bytes": "many"},
            {f"shards__{array}__bytes": 10**18},
            {f"shards__{array}__crc32c": "zz"},
            {f"shards__{array}__crc32c": ""},
            {f"shards__{array}__crc32c": "00000000" * 1000},
            {f"shards__{array}__crc32c": "0000    " * 8},
            {f"shards__{array}__crc32c": None},
            {f"shards__{array}": ...},
            {"shards": []},
            {"shards": {}},
            {"missing": {"99": "x"}},
            {"missing": {"²": "x"}},
            {"missing": {"-1": "x"}},
            {"missing": [1]},
            {"rows": 10**9},
            {"rows": "8"},
            {"rows": -1},
            {"partition": "1"},
            {"partition": ...},
            {"stats": []},
            {"stats": {"a": "b"}},
            {"rows_digest": 5},
            {"identity_digest": None},
        )
    },
    **{
        f"data set {changes!r}": resealed("datasets/data", **changes)
        for changes in (
            {"members": "zz"},
            {"members": 5},
            {"members": ...},
            {"slots": 10**12},
            {"slots": -1},
            {"slots": "8"},
            {"slots": None},
            {"slots": 1.5},
        )
    },
    **{
        f"texts {content!r}": texts(content)
        for content in (
            b"",
            struct.pack("<I", 2**32 - 1),
            struct.pack("<I", 8) + struct.pack("<I", 2**32 - 1) + b"x",
            struct.pack("<I", 8) + (struct.pack("<I", 1) + b"\xff") * 8,
            struct.pack("<I", 1) + struct.pack("<I", 1) + b"a",
        )
    },
}


def every_operation(path: Path, target: Path) -> list[str]:
    """Do everything with a store; returns the messages of the CacheErrors. Rows and values that are read are right."""
    expected, refused = [(row.id, row.simple) for row in sample_rows(20)], []

    def attempt(operation: Callable[[], object]) -> None:
        try:
            operation()
        except CacheError as error:
            refused.append(str(error))

    def rows() -> None:
        store = Store.open(path)
        assert [(row.id, row.simple) for row in store.rows()] == expected

    def members() -> None:
        store = Store.open(path)
        assert [int(store.members(name).sum()) for name in store.datasets()] in ([20], [])

    def load(name: str) -> None:
        loader = Loader(Store.open(path), [name], batch_size=4, selection=ALL)
        assert sum(len(batch.slots) for batch in loader.batches()) == loader.n_rows // 4 * 4

    def look() -> None:
        Store.open(path).describe()
        Store.open(path, recover=True).n_files()
        Store.open(path, recover=True).verify()

    def change() -> None:
        store = Store.open(path, writable=True, recover=True)
        with suppress(CacheError):
            store.add_rows(sample_rows(3, first=300))
            store.ensure_feature(STATES)
        store.repair(store.verify(), sample_rows(20))
        Store.open(path).describe()
        store.drop_feature(STATES.name)

    attempt(rows)
    attempt(members)
    attempt(lambda: load(STATES.name))
    attempt(lambda: load(LATENTS.name))
    attempt(lambda: Store.open(path).read_asset("null"))
    attempt(look)
    attempt(lambda: compact(Store.open(path), Store.create(target)))
    attempt(change)
    return refused


@pytest.mark.parametrize("name", CHANGES)
def test_a_hostile_store_gives_right_rows_or_an_error_that_names_a_file_and_a_remedy(path, tmp_path, name):
    CHANGES[name](path)
    for message in every_operation(path, tmp_path / "target"):
        assert len(message) > 30 and "\n\n" not in message


def test_an_invalid_declaration_leaves_the_other_features_usable(path, caplog):
    resealed(STATES_FOLDER, arrays={"states": {"dtype": "complex", "shape": [3]}})(path)
    store = Store.open(path)
    assert set(store.features()) == {LATENTS.name} and STATES.name in caplog.text
    assert len(store.read(LATENTS.name)["mean"]) == 20
    assert [damage.file for damage in store.verify()] == [f"{STATES_FOLDER}/zarr.json"]


def test_a_folder_of_another_name_among_the_receipts_stops_nothing(path):
    for name in ("²", "٣", "1", "99999999999999999999"):
        (path / "receipts/rows" / name).mkdir()
        (path / "receipts/rows" / name / "zarr.json").write_bytes(b"{}")
    store = Store.open(path, writable=True)
    assert store.n_rows == 20 and len(store.read(STATES.name)["states"]) == 20
    assert store.add_rows(sample_rows(3, first=100)) == 3
    assert {damage.problem for damage in store.verify()} == {"not part of the store"}


@pytest.mark.parametrize("codec", ["zstd", "blosc-shuffle", "blosc-bitshuffle", "pcodec"])
def test_a_chunk_that_unpacks_to_more_or_less_than_its_row_is_refused_before_it_is_unpacked(codec):
    bomb = pack(codec, np.zeros(30_000_000, dtype="<u2"))
    assert len(bomb) < 50_000
    for target in (np.empty(300, dtype="<u2"), np.empty(30_000_001, dtype="<u2")):
        with pytest.raises(ValueError, match="bytes when unpacked"):
            unpack(codec, np.frombuffer(bomb, dtype=np.uint8), target)
    for garbage in (b"", b"\x28\xb5\x2f\xfd", bytes(64), bomb[:20], bomb[:-3]):
        with pytest.raises(ValueError, match=codec):
            unpack(codec, np.frombuffer(garbage, dtype=np.uint8), np.empty(30_000_000, dtype="<u2"))


@pytest.mark.parametrize(("offset", "length"), [(2**63, 8), (0, 2**63), (0, 3), (2**64 - 8, 16), (10**6, 10)])
def test_an_index_that_names_places_outside_its_shard_is_refused(offset, length):
    layout = Layout(replace(STATES.arrays["states"], codec="zstd"), 8)
    values = np.arange(8 * 300, dtype="<u2").reshape(8, 300)
    pieces, crcs = layout.encode(values)
    index = np.frombuffer(bytes(pieces[-1])[:-4], dtype="<u8").copy()
    index[2:4] = offset, length
    shard = b"".join([*map(bytes, pieces[:-1]), with_crc(index.tobytes())])
    with pytest.raises(CorruptStore, match="outside"):
        layout.read_index(shard, len(shard), "shard")
    assert layout.fault(shard, crcs) == "in its index"
