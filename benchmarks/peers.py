"""Ways to keep rows of numbers on a disk: this project's cache, and what a user would otherwise pick.

Each is set up as its own documentation recommends.
"""

from __future__ import annotations

import os
import shutil
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np

DTYPE = np.float16
SHARD = 512


def rows(n: int, shape: tuple[int, ...]) -> np.ndarray:
    """`n` rows of reproducible numbers, float16 (n, *shape), as noisy as text states are; n is at most a shard's."""
    return np.random.default_rng(0).standard_normal((SHARD, *shape), dtype=np.float32).astype(DTYPE)[:n]


def blocks(n: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """All rows, a shard's worth at a time; made once, as making them is not what is measured."""
    if shape not in _made:
        _made[shape] = rows(SHARD, shape)
    for start in range(0, n, SHARD):
        yield _made[shape][: n - start]


_made: dict[tuple[int, ...], np.ndarray] = {}


class Peer(Protocol):
    """One way to keep rows: `write` them, then `scan` them in order (None: cannot) or `gather` some (None: cannot)."""

    def prepare(self, path: Path, n: int, shape: tuple[int, ...]) -> None:
        """What comes before and holds none of the numbers."""

    @abstractmethod
    def write(self, path: Path, n: int, shape: tuple[int, ...]) -> None:
        """Store all rows durably."""

    def open(self, path: Path, n: int, shape: tuple[int, ...]) -> None:
        """Make ready to read."""

    def scan(self) -> Iterator[np.ndarray] | None:
        """Rows in stored order, in arrays of any length."""
        return None

    def gather(self, places: np.ndarray) -> np.ndarray | None:
        """Rows at `places`."""
        return None


class MemoryMap(Peer):
    """A plain file, written and fsynced, read through numpy.memmap: nothing is checked."""

    def write(self, path, n, shape):
        with open(path / "rows.bin", "wb") as file:
            for block in blocks(n, shape):
                file.write(block.data)
            file.flush()
            os.fsync(file.fileno())

    def open(self, path, n, shape):
        self.map = np.memmap(path / "rows.bin", DTYPE, "r", shape=(n, *shape))

    def scan(self):
        return (np.array(self.map[start : start + SHARD]) for start in range(0, len(self.map), SHARD))

    def gather(self, places):
        return np.take(self.map, places, axis=0)


class Ours(Peer):
    """This project's store, codec raw, written as an extraction does; reads are checked on the first touch."""

    codec = "raw"

    def prepare(self, path, n, shape):
        from sur.cache import ArraySpec, FeatureSpec, RowRecord, Store, row_id

        store = Store.create(path / "store.zarr", SHARD)
        store.add_rows(RowRecord(row_id(str(i), "", None), str(i)) for i in range(n))
        store.ensure_feature(FeatureSpec("x", "x", {}, {"states": ArraySpec("float16", shape, self.codec)}))

    def write(self, path, n, shape):
        from sur.cache import Store, WriteBehind

        store = Store.open(path / "store.zarr", writable=True)
        with WriteBehind() as writes:
            for partition, block in enumerate(blocks(n, shape)):
                claimed = ExitStack()
                claimed.enter_context(store.claim("x", partition))
                packed = store.pack_partition("x", partition, {"states": block})

                def publish(claimed: ExitStack = claimed, packed: Any = packed) -> None:
                    with claimed:
                        store.publish_partition("x", packed)

                writes.submit(publish)

    def open(self, path, n, shape):
        from sur.cache import Store

        self.store = Store.open(path / "store.zarr")
        self.n = n

    def scan(self):
        return (self.store.read_partition("x", p)["states"] for p in range(self.store.n_partitions))

    def gather(self, places):
        return self.store.read("x", places)["states"]


class OursBlosc(Ours):
    """This project's store, codec blosc-shuffle."""

    codec = "blosc-shuffle"


class OursLoader(Ours):
    """This project's loader in its default mode, batches as torch tensors in the loader's own random order."""

    reader = "RowWise"

    def scan(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return None

    def gather(self, places):
        from sur import cache

        if getattr(self, "size", None) != len(places):
            self.size = len(places)
            reader, everything = getattr(cache, self.reader), cache.Selection(split="all")
            loader = cache.Loader(self.store, ["x"], batch_size=self.size, selection=everything, reader=reader)
            self.batches = loader.forever()
            next(self.batches)
        return next(self.batches).arrays["x/states"].numpy()


class OursWindow(OursBlosc, OursLoader):
    """The loader on packed features: whole partitions are decoded and mixed in memory."""

    reader = "Windowed"


class OursResident(OursLoader):
    """The loader with all rows resident in memory."""

    reader = "Resident"


class ZarrPython(Ours):
    """The same store through zarr-python's own indexing."""

    def open(self, path, n, shape):
        import zarr

        self.array: Any = zarr.open_array(str(path / "store.zarr/features/x/states"), mode="r")
        self.n = n

    def scan(self):
        return (self.array[start : min(self.n, start + SHARD)] for start in range(0, self.n, SHARD))

    def gather(self, places):
        return self.array.oindex[places]


class TensorStore(ZarrPython):
    """The same store through tensorstore."""

    def open(self, path, n, shape):
        import tensorstore

        kvstore = {"driver": "file", "path": str(path / "store.zarr/features/x/states")}
        self.array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()
        self.n = n

    def scan(self):
        return (self.array[s : min(self.n, s + SHARD)].read().result() for s in range(0, self.n, SHARD))

    def gather(self, places):
        return self.array[places].read().result()


class HDF5(Peer):
    """h5py, one row a chunk with its checksum; rows read one by one, which is faster than a list of indices."""

    def write(self, path, n, shape):
        import h5py  # pyright: ignore[reportMissingImports]

        with h5py.File(path / "rows.h5", "w") as file:
            dataset = file.create_dataset("x", (n, *shape), DTYPE, chunks=(1, *shape), fletcher32=True)
            for start, block in zip(range(0, n, SHARD), blocks(n, shape), strict=True):
                dataset[start : start + len(block)] = block
            file.flush()
        sync(path)

    def open(self, path, n, shape):
        import h5py  # pyright: ignore[reportMissingImports]

        self.data: Any = h5py.File(path / "rows.h5", "r")["x"]

    def scan(self):
        return (self.data[start : start + SHARD] for start in range(0, len(self.data), SHARD))

    def gather(self, places):
        out = np.empty((len(places), *self.data.shape[1:]), DTYPE)
        for row, place in zip(out, places.tolist(), strict=True):
            self.data.read_direct(row, np.s_[place])
        return out


class LMDB(Peer):
    """lmdb, a key a row, no read-ahead, as its docs advise for random reads of more than fits in memory."""

    def write(self, path, n, shape):
        import lmdb  # pyright: ignore[reportMissingImports]

        size = int(n * np.prod(shape) * 2 * 1.3) + 2**26
        with lmdb.open(str(path), map_size=size) as env:
            key = 0
            for block in blocks(n, shape):
                with env.begin(write=True) as put:
                    for row in block:
                        put.put(key.to_bytes(8, "big"), row.tobytes())
                        key += 1
            env.sync(True)

    def open(self, path, n, shape):
        import lmdb  # pyright: ignore[reportMissingImports]

        self.env, self.shape, self.n = lmdb.open(str(path), readonly=True, readahead=False, lock=False), shape, n

    def gather(self, places):
        out = np.empty((len(places), *self.shape), DTYPE)
        with self.env.begin(buffers=True) as get:
            for row, place in zip(out, places.tolist(), strict=True):
                row[...] = np.frombuffer(get.get(place.to_bytes(8, "big")), DTYPE).reshape(self.shape)
        return out

    def scan(self):
        return (self.gather(np.arange(s, min(self.n, s + SHARD))) for s in range(0, self.n, SHARD))


class SafetensorsRow(Peer):
    """A safetensors file a row, a thousand in a folder."""

    def _file(self, place: int) -> Path:
        return self.path / f"{place // 1000:04d}" / f"{place % 1000:03d}.safetensors"

    def write(self, path, n, shape):
        from safetensors.numpy import save_file

        self.path, place = path, 0
        for block in blocks(n, shape):
            for row in block:
                self._file(place).parent.mkdir(exist_ok=True)
                save_file({"x": row}, self._file(place))
                place += 1
        sync(path)

    def open(self, path, n, shape):
        self.path, self.n, self.shape = path, n, shape

    def gather(self, places):
        from safetensors.numpy import load_file

        return np.stack([load_file(self._file(place))["x"] for place in places.tolist()])

    def scan(self):
        return (self.gather(np.arange(s, min(self.n, s + SHARD))) for s in range(0, self.n, SHARD))


class TorchDict(Peer):
    """torch.save of {row: tensor}, a file a shard; loaded with mmap and weights_only."""

    def write(self, path, n, shape):
        import torch

        for number, block in enumerate(blocks(n, shape)):
            torch.save({i: torch.from_numpy(row.copy()) for i, row in enumerate(block)}, path / f"{number:05d}.pt")
        sync(path)

    def open(self, path, n, shape):
        import torch

        self.parts = [torch.load(file, mmap=True, weights_only=True) for file in sorted(path.glob("*.pt"))]

    def gather(self, places):
        import torch

        return torch.stack([self.parts[p // SHARD][p % SHARD] for p in places.tolist()]).numpy()

    def scan(self):
        import torch

        return (torch.stack(list(part.values())).numpy() for part in self.parts)


def _unused(name: str) -> type:
    """A class that stands for whatever is imported from torchvision; names of the import system do not exist."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type("Unused", (), {})


class Streaming(Peer):
    """MosaicML streaming, shards of 64 MiB. It imports torchvision, which arrays do not need and is stood in for."""

    def _import(self) -> Any:
        import types
        from importlib.machinery import ModuleSpec

        for name in (
            "torchvision",
            "torchvision.datasets",
            "torchvision.transforms",
            "torchvision.transforms.functional",
        ):
            if name not in sys.modules:
                module = types.ModuleType(name)
                module.__spec__ = ModuleSpec(name, None)
                module.__dict__["__getattr__"] = _unused
                sys.modules[name] = module
        import streaming  # pyright: ignore[reportMissingImports]

        return streaming

    def write(self, path, n, shape):
        kind = f"ndarray:float16:{','.join(map(str, shape))}"
        with self._import().MDSWriter(out=str(path), columns={"x": kind}, size_limit=2**26) as writer:
            for block in blocks(n, shape):
                for row in block:
                    writer.write({"x": row})
        sync(path)

    def open(self, path, n, shape):
        self.data = self._import().StreamingDataset(local=str(path), shuffle=False, batch_size=32)
        self.n = n

    def gather(self, places):
        return np.stack([self.data[place]["x"] for place in places.tolist()])

    def scan(self):
        return (self.gather(np.arange(s, min(self.n, s + SHARD))) for s in range(0, self.n, SHARD))


class LitData(Peer):
    """LitData's StreamingDataset, chunks of 64 MB."""

    def write(self, path, n, shape):
        from litdata.streaming.writer import BinaryWriter  # pyright: ignore[reportMissingImports]

        writer = BinaryWriter(str(path), chunk_bytes=2**26)
        place = 0
        for block in blocks(n, shape):
            for row in block:
                writer.add_item(place, {"x": row})
                place += 1
        writer.done()
        writer.merge()
        sync(path)

    def open(self, path, n, shape):
        from litdata import StreamingDataset  # pyright: ignore[reportMissingImports]

        self.data, self.n = StreamingDataset(str(path)), n

    def gather(self, places):
        return np.stack([self.data[place]["x"] for place in places.tolist()])

    def scan(self):
        return (self.gather(np.arange(s, min(self.n, s + SHARD))) for s in range(0, self.n, SHARD))


class WebDataset(Peer):
    """WebDataset tars of .npy; read in order (its shuffle is a buffer over that)."""

    def write(self, path, n, shape):
        import webdataset  # pyright: ignore[reportMissingImports]

        with webdataset.ShardWriter(str(path / "%05d.tar"), maxcount=SHARD, verbose=0) as sink:
            place = 0
            for block in blocks(n, shape):
                for row in block:
                    sink.write({"__key__": f"{place:09d}", "x.npy": row})
                    place += 1
        sync(path)

    def open(self, path, n, shape):
        self.files = [str(file) for file in sorted(path.glob("*.tar"))]

    def scan(self):
        import webdataset  # pyright: ignore[reportMissingImports]

        data = webdataset.WebDataset(self.files, shardshuffle=False, empty_check=False).decode().to_tuple("x.npy")
        return (row[None] for (row,) in data)


class HFDatasets(Peer):
    """Hugging Face datasets (Arrow) with a fixed-shape column, numpy format."""

    def write(self, path, n, shape):
        import datasets

        datasets.disable_progress_bars()
        features = datasets.Features({"x": datasets.Array2D(shape, "float16")})

        def made() -> Iterator[dict[str, np.ndarray]]:
            for block in blocks(n, shape):
                for row in block:
                    yield {"x": row}

        data: Any = datasets.Dataset.from_generator(made, features=features, cache_dir=str(path / "cache"))
        data.save_to_disk(str(path / "data"))
        shutil.rmtree(path / "cache")
        sync(path)

    def open(self, path, n, shape):
        import datasets

        self.data: Any = datasets.load_from_disk(str(path / "data")).with_format("numpy")

    def gather(self, places):
        return np.asarray(self.data[places.tolist()]["x"])

    def scan(self):
        return (np.asarray(self.data[s : s + SHARD]["x"]) for s in range(0, len(self.data), SHARD))


PEERS: dict[str, Callable[[], Peer]] = {
    "plain file, memory map": MemoryMap,
    "cache, raw": Ours,
    "its loader": OursLoader,
    "its loader, resident": OursResident,
    "cache, blosc": OursBlosc,
    "its loader, windows": OursWindow,
    "zarr-python": ZarrPython,
    "tensorstore": TensorStore,
    "HDF5": HDF5,
    "LMDB": LMDB,
    "safetensors a row": SafetensorsRow,
    "torch .pt dict": TorchDict,
    "MosaicML streaming": Streaming,
    "LitData": LitData,
    "WebDataset": WebDataset,
    "HF datasets": HFDatasets,
}


def sync(path: Path) -> None:
    """Make every file below `path` durable, for libraries that do not."""
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
