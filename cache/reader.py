"""Random rows of one feature straight from the shard files, never a wrong number.

Rows are read by offset into the caller's memory (a positioned read: as fast as a memory map on warm files,
and a truncated file or a bad disk is an error instead of a killed process). Each chunk's CRC32C is compared
with the receipt on the first touch by this reader; later reads of it trust the operating system's cache.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from cache.errors import CorruptStore
from cache.receipts import ShardReceipt
from cache.shard import CRC_BYTES, Layout, crc32c


class _Shard:
    """An open shard file; closed when its last user lets go, so that eviction is safe between threads."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise CorruptStore(f"{path} is gone, but its partition has a receipt. Run verify.") from error
        size = os.fstat(self.descriptor).st_size
        if size != layout.shard_bytes:
            raise CorruptStore(f"{path}: expected {layout.shard_bytes:,} bytes, found {size:,}. Run verify.")

    def __del__(self) -> None:
        if (descriptor := getattr(self, "descriptor", None)) is not None:
            os.close(descriptor)

    def read_into(self, target: np.ndarray, offset: int) -> None:
        """Fill contiguous bytes from `offset` on."""
        if os.preadv(self.descriptor, [target.data], offset) != target.nbytes:
            raise CorruptStore(f"{self.path}: too short to hold {target.nbytes:,} bytes at {offset:,}.")


class ArrayReader:
    """Gathers rows of one array; `receipt_of` gives the receipt of a partition's shard.

    Rows too small for a chunk of their own (under 512 bytes) stay in memory once their shard was read.
    """

    def __init__(
        self, path_of: Callable[[int], Path], layout: Layout, receipt_of: Callable[[int], ShardReceipt]
    ) -> None:
        self.layout = layout
        self._receipt_of = receipt_of
        self._checks: dict[int, tuple[np.ndarray, bytearray]] = {}
        self._small = np.empty((0, layout.spec.nbytes), dtype=np.uint8)
        # A descriptor a shard, within a quarter of what the process may open.
        limit = max(16, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._shard = lru_cache(maxsize=limit)(lambda partition: _Shard(path_of(partition), layout))

    def gather(self, slots: np.ndarray) -> np.ndarray:
        """Rows at `slots`, int64 (n,), as stored elements (n, *row shape).

        Raises:
            CorruptStore: a checksum or a size does not match.
        """
        out = np.empty((len(slots), *self.layout.spec.shape), dtype=self.layout.dtype)
        if len(slots):
            rows = out.reshape(len(slots), -1).view(np.uint8)
            if self.layout.rows_per_chunk == 1:
                self._gather_large(slots, rows)
            else:
                self._gather_small(slots, rows)
        return out

    def _gather_large(self, slots: np.ndarray, rows: np.ndarray) -> None:
        stride = self.layout.chunk_bytes + CRC_BYTES
        partitions, places = np.divmod(slots, self.layout.rows_per_shard)
        for row, partition, place in zip(rows, partitions.tolist(), places.tolist(), strict=True):
            crcs, checked = self._checks.get(partition) or self._remember(partition)
            shard = self._shard(partition)
            shard.read_into(row, place * stride)
            if not checked[place]:
                _check(shard, place, row, crcs)
                checked[place] = True

    def _gather_small(self, slots: np.ndarray, rows: np.ndarray) -> None:
        per_shard = self.layout.rows_per_shard
        partitions = np.unique(slots // per_shard).tolist()
        if (missing := (partitions[-1] + 1) * per_shard - len(self._small)) > 0:
            self._small = np.concatenate([self._small, np.empty((missing, rows.shape[1]), dtype=np.uint8)])
        for partition in partitions:
            crcs, checked = self._checks.get(partition) or self._remember(partition)
            if not checked[0]:
                shard, chunk = self._shard(partition), self._small[partition * per_shard :][:per_shard]
                shard.read_into(chunk.reshape(-1), 0)
                _check(shard, 0, chunk.reshape(-1), crcs)
                checked[0] = True
        np.take(self._small, slots, axis=0, out=rows)

    def _remember(self, partition: int) -> tuple[np.ndarray, bytearray]:
        crcs = self._receipt_of(partition).crcs()
        if len(crcs) != self.layout.chunks:
            raise CorruptStore(
                f"Receipt of partition {partition}: {len(crcs)} checksums for {self.layout.chunks} chunks."
            )
        self._checks[partition] = (crcs, bytearray(len(crcs)))
        return self._checks[partition]


def _check(shard: _Shard, chunk: int, data: np.ndarray, crcs: np.ndarray) -> None:
    if crc32c(data) != crcs[chunk]:
        raise CorruptStore(f"{shard.path}: chunk {chunk} does not have the checksum of its receipt. Run verify.")
