"""Receipts: the only proof that a partition is done. A receipt is written last and never edited.

It lies in the attributes of a Zarr group. It contains no time and no host, so that equal work gives equal bytes. It
repeats the CRC32C of every chunk, so that a shard in the place of another one is found on reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sur.cache.errors import CorruptStore
from sur.cache.format import metadata
from sur.cache.storage.base import Storage, join

ROW_RECEIPTS = "receipts/rows"
_NUMBER = re.compile(r"[0-9]{5}|[1-9][0-9]{5,11}")  # as partition_directory writes it


@dataclass(frozen=True)
class ShardReceipt:
    """Size of one file, and the CRC32C of each of its chunks (hex, 8 digits each; 0 for a chunk that is not stored).

    `sha256` is a digest that format versions 1 and 2 had too; "" since.
    """

    bytes: int
    crc32c: str
    sha256: str = ""

    def __post_init__(self) -> None:
        digits = 2 * len(bytes.fromhex(self.crc32c))  # passes over blanks
        if not _natural(self.bytes) or digits % 8 or digits != len(self.crc32c):
            raise ValueError(f"{self.bytes!r} bytes with {len(self.crc32c)} digits of checksums")

    @classmethod
    def of(cls, size: int, crcs: np.ndarray) -> ShardReceipt:
        """Receipt of a file of `size` bytes whose chunks have the checksums `crcs`."""
        return cls(size, crcs.astype(">u4").tobytes().hex())

    def attributes(self) -> dict[str, Any]:
        """The receipt as JSON."""
        old = {"sha256": self.sha256} if self.sha256 else {}
        return {"bytes": self.bytes, "crc32c": self.crc32c, **old}

    def agrees(self, other: ShardReceipt) -> bool:
        """Whether both stand for the same bytes."""
        return (self.bytes, self.crc32c) == (other.bytes, other.crc32c)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return len(self.crc32c) // 8

    def crcs(self) -> np.ndarray:
        """CRC32C of each chunk, uint32."""
        return np.frombuffer(bytes.fromhex(self.crc32c), dtype=">u4").astype(np.uint32)


@dataclass(frozen=True)
class Receipt:
    """The committed files of one partition of a feature or of the rows, or of an asset (partition 0).

    `rows_digest` is the SHA-256 of the partition's row ids. `missing` maps the place of a row in the partition to the
    reason why it has no value. `stats` are counts that the writer added.
    """

    identity_digest: str
    partition: int
    rows: int
    rows_digest: str
    shards: Mapping[str, ShardReceipt]
    missing: Mapping[int, str] = field(default_factory=dict)
    stats: Mapping[str, int] = field(default_factory=dict)
    format_version: int = metadata.FORMAT_VERSION

    def attributes(self) -> dict[str, Any]:
        """The receipt as JSON with its digest."""
        return metadata.seal(
            {
                "format_version": self.format_version,
                "identity_digest": self.identity_digest,
                "partition": self.partition,
                "rows": self.rows,
                "rows_digest": self.rows_digest,
                "shards": {name: shard.attributes() for name, shard in sorted(self.shards.items())},
                "missing": {str(row): reason for row, reason in sorted(self.missing.items())},
                "stats": dict(sorted(self.stats.items())),
            }
        )

    def agrees(self, other: Receipt) -> bool:
        """Whether both stand for the same rows and bytes; the format versions may differ."""
        return (
            (self.rows, self.rows_digest) == (other.rows, other.rows_digest)
            and self.shards.keys() == other.shards.keys()
            and all(shard.agrees(other.shards[name]) for name, shard in self.shards.items())
        )


def publish_receipt(storage: Storage, directory: str, receipt: Receipt) -> None:
    """Write a receipt: from here on the partition is done."""
    metadata.publish_metadata(storage, directory, metadata.group(receipt.attributes()))


def read_receipt(storage: Storage, directory: str) -> Receipt | None:
    """The receipt in `directory`; None if it does not exist.

    Raises:
        CorruptStore: the receipt does not agree with its digest.
    """
    document = metadata.read_metadata(storage, directory)
    if document is None:
        return None
    where = storage.where(directory)
    content = metadata.unseal(document["attributes"], where)
    try:
        content["shards"] = {name: ShardReceipt(**shard) for name, shard in content["shards"].items()}
        content["missing"] = {int(row): str(reason) for row, reason in content["missing"].items()}
        receipt = Receipt(**content)
        if not all(map(_natural, (receipt.partition, receipt.rows, *receipt.missing, *receipt.stats.values()))):
            raise ValueError("a number in it is none")
        if not all(row < receipt.rows for row in receipt.missing):
            raise ValueError(f"a row without a value is not one of its {receipt.rows} rows")
        return receipt
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStore(f"{join(where, metadata.FILE)}: not a receipt of this format: {error!r}.") from error


def partition_directory(parent: str, partition: int) -> str:
    """Folder of a partition's receipt."""
    return f"{parent}/{partition:05d}"


def partition_numbers(storage: Storage, receipts: str) -> list[int]:
    """Partitions that have a folder in `receipts`, sorted; folders of other names are not of this store."""
    return sorted(int(name) for name in storage.folders(receipts) if _NUMBER.fullmatch(name))


def receipt_numbers(storage: Storage, receipts: str) -> list[int]:
    """Partitions that have a receipt file, sorted."""
    numbers = partition_numbers(storage, receipts)
    sizes = storage.map(lambda n: storage.size(join(partition_directory(receipts, n), metadata.FILE)), numbers)
    return [number for number, size in zip(numbers, sizes, strict=True) if size is not None]


def _natural(value: Any) -> bool:
    return type(value) is int and value >= 0
