"""One vector for each row of any feature, kept as a memory-mapped file in the user's cache folder.

Token states: the mean over the prompt's own tokens. Latents: the mean of the picture's first view, averaged over cells
of a grid of at most 8 x 8 and flattened. Other features: the row's values, flattened.

A file belongs to one feature of one store. Its partitions are known by their identity, row ids and checksums, so at the
next look only new partitions are computed, and the vectors of the others are copied.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from sur.analysis.store.blocks import RowBlock, is_latents, main_array, partition_blocks, valued_slots
from sur.cache import FeatureSpec, Receipt, Store
from sur.support.files import write_text

GRID = 8  # cells a side to which latents are averaged
POOLING_VERSION = 1  # another number makes every file anew

_log = logging.getLogger(__name__)


def row_vectors(
    store: Store, name: str, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the rows with a value, float32 (rows, dim), memory-mapped for reading, and their slots, int64 (rows,).

    progress: is called with rows done and rows in all while vectors are computed.

    Raises:
        UnknownFeature: the store has no such feature; the message names those that exist.
        NotInStore: the feature holds no floats.
        CorruptStore: a checksum does not match.
    """
    spec = store.spec(name)
    slots, receipts = valued_slots(store, name)
    partitions = [(_digest(spec, receipt), receipt) for receipt in receipts]
    file = _VectorFile(cache_folder() / "vectors", store, name)
    if file.index and [digest for digest, _ in partitions] == [digest for digest, _ in file.index]:
        return file.vectors, slots
    shape = (len(slots), vector_size(spec))
    try:
        with file.scratch() as scratch:
            mapped = _mapped(scratch, shape)
            index = _fill(mapped, store, spec, partitions, file, progress)
            mapped.flush()
            del mapped
            file.replace(scratch, index)
            return file.vectors, slots
    except (OSError, ValueError) as error:  # a full or read-only disk; numpy maps no file without rows
        if len(slots):
            _log.warning("vectors of %s are not kept, and will be computed again: %s", name, error)
    vectors = np.empty(shape, np.float32)
    _fill(vectors, store, spec, partitions, None, progress)
    return vectors, slots


def cache_folder() -> Path:
    """Folder of the kept vectors: $SUR_CACHE, else the system's folder for caches; it may be deleted at any time."""
    if given := os.environ.get("SUR_CACHE"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("sur")


def vector_size(spec: FeatureSpec) -> int:
    """Numbers in a row's vector."""
    shape = spec.arrays[main_array(spec)].shape
    if is_latents(spec):
        return shape[1] * min(shape[2], GRID) * min(shape[3], GRID)
    if len(shape) == 2 and spec.arrays.keys() & {"length", "mask"}:
        return shape[1]
    return int(np.prod(shape, dtype=np.int64))


def block_vectors(spec: FeatureSpec, block: RowBlock) -> np.ndarray:
    """Vectors of a block's rows, float32 (rows, dim)."""
    if is_latents(spec):
        return _cells(block.values[:, 0])
    if block.counted is None:
        return block.values.reshape(len(block.values), -1)
    weights = block.counted.astype(np.float32)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    return np.einsum("rtd,rt->rd", block.values, weights)


def _cells(latents: np.ndarray) -> np.ndarray:
    """Means over a grid of cells, (rows, channels, height, width) -> (rows, channels * cells)."""
    for axis in (2, 3):
        side = latents.shape[axis]
        if side > GRID:
            starts = np.arange(GRID) * side // GRID
            sizes = np.diff([*starts, side]).astype(np.float32)
            sums = np.add.reduceat(latents, starts, axis=axis)
            latents = sums / np.expand_dims(sizes, tuple(range(1, 4 - axis)))
    return latents.reshape(len(latents), -1)


def _mapped(path: Path, shape: tuple[int, int]) -> np.memmap:
    """A new memory-mapped file whose disk blocks are allocated already.

    On a full disk, writing a page of a file without blocks would end the process (SIGBUS). Raises: OSError if the disk
    is full.
    """
    mapped = open_memmap(path, "w+", np.float32, shape)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return mapped


def _fill(
    vectors: np.ndarray,
    store: Store,
    spec: FeatureSpec,
    partitions: list[tuple[str, Receipt]],
    file: _VectorFile | None,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[str, int]]:
    """Compute the vectors of each partition, or copy them from the old file; returns (digest, rows) of each."""
    old, places, first = (file.vectors if file is not None else None), {}, 0
    for digest, rows in file.index if file is not None else ():
        places[digest] = first
        first += rows
    index, done = [], 0
    for digest, receipt in partitions:
        began = done
        if old is not None and digest in places:
            done += receipt.rows - len(receipt.missing)
            vectors[began:done] = old[places[digest] : places[digest] + done - began]
        else:
            for block in partition_blocks(store, spec.name, receipt):
                vectors[done : done + len(block.slots)] = block_vectors(spec, block)
                done += len(block.slots)
        index.append((digest, done - began))
        if progress is not None:
            progress(done, len(vectors))
    return index


def _digest(spec: FeatureSpec, receipt: Receipt) -> str:
    """Digest of everything that a partition's vectors depend on, and of its number."""
    crcs: Mapping[str, str] = {name: shard.crc32c for name, shard in sorted(receipt.shards.items())}
    missing = sorted(receipt.missing)
    content = [POOLING_VERSION, spec.identity_digest, receipt.partition, receipt.rows_digest, missing, crcs]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class _VectorFile:
    """The vectors of one feature of one store in a file, and its index: (digest, rows) of each partition.

    The file's name contains the digest of the index, so that two processes that renew it never mix their files. The
    file is mapped at once, since another process may replace it at any time.
    """

    def __init__(self, folder: Path, store: Store, name: str) -> None:
        place = store.path if isinstance(store.path, str) else store.path.resolve()
        self.folder = folder
        self.key = hashlib.sha256(f"{place}\n{name}".encode()).hexdigest()[:32]
        self.index, self.vectors = self._read()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Path of a file to fill and hand to `replace`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            yield Path(scratch) / "vectors.npy"

    def replace(self, filled: Path, index: list[tuple[str, int]]) -> None:
        """Keep a filled file in place of the older one, which stays readable for processes that have it open."""
        self.vectors = np.load(filled, mmap_mode="r", allow_pickle=False)
        filled.replace(self._file(index))
        write_text(self.folder / f"{self.key}.json", json.dumps(index))
        self.index = index
        for file in self.folder.glob(f"{self.key}-*.npy"):
            if file != self._file(index):
                file.unlink(missing_ok=True)

    def _file(self, index: list[tuple[str, int]]) -> Path:
        digest = hashlib.sha256(json.dumps(index).encode()).hexdigest()[:16]
        return self.folder / f"{self.key}-{digest}.npy"

    def _read(self) -> tuple[list[tuple[str, int]], np.ndarray]:
        try:
            entries = json.loads((self.folder / f"{self.key}.json").read_text())
            index = [(str(digest), int(rows)) for digest, rows in entries]
            vectors = np.load(self._file(index), mmap_mode="r", allow_pickle=False)
            if len(vectors) == sum(rows for _, rows in index):
                return index, vectors
        except (OSError, ValueError, TypeError):
            pass
        return [], np.empty((0, 0), np.float32)
