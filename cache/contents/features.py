"""One feature (or asset) of a store: its folders, metadata, receipts and values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sur.cache.contents.array_reader import ArrayReader
from sur.cache.errors import BadValues, CorruptStore, IdentityMismatch, IncompleteFeature
from sur.cache.format import metadata
from sur.cache.format.checksum import CRC_BYTES, with_crc, without_crc
from sur.cache.format.dtypes import all_finite, as_stored, finite_mask, rounded
from sur.cache.format.receipts import (
    Receipt,
    ShardReceipt,
    partition_directory,
    partition_numbers,
    publish_receipt,
    read_receipt,
)
from sur.cache.format.shard import Layout
from sur.cache.format.spec import FeatureSpec
from sur.cache.storage.base import Storage, join
from sur.cache.storage.keys import parse_key

SECTIONS = ("features", "assets")
Values = Mapping[str, np.ndarray]  # by array
Reasons = Mapping[int, str]  # why a row has no value, by its place in the partition
Counts = Mapping[str, int]  # by name
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed:
    """A partition of a feature, ready to be written: its files in pieces, by key, and their receipt."""

    receipt: Receipt
    files: Mapping[str, Sequence[bytes | memoryview]]


class Feature:
    """The files of one feature; `section` is "features" (arrays of rows) or "assets" (arrays that belong to no row).

    `rows_digest` gives the digest of a partition's row ids, None where the rows are damaged.
    """

    def __init__(
        self,
        storage: Storage,
        section: str,
        spec: FeatureSpec,
        rows_per_partition: int,
        rows_digest: Callable[[int], str | None],
    ) -> None:
        self.spec = spec
        self.section = section
        self.directory = f"{section}/{spec.name}"
        self.receipts = f"receipts/{section}/{spec.name}"
        self._storage = storage
        self.rows_digest = rows_digest if section == "features" else lambda partition: ""
        self._per_partition = rows_per_partition
        self._done: dict[int, Receipt] = {}

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        """Layout of the shards of a feature, by array."""
        return {name: Layout(spec, self._per_partition) for name, spec in sorted(self.spec.arrays.items())}

    @cached_property
    def readers(self) -> dict[str, ArrayReader]:
        """Readers of a feature's rows, by array."""
        return {
            name: ArrayReader(
                self._storage,
                lambda p, name=name: self.key(name, p),
                layout,
                lambda p, name=name: self.done(p).shards[name],
            )
            for name, layout in self.layouts.items()
        }

    def key(self, array: str, partition: int) -> str:
        """Key of the file of one partition of an array; an asset has partition 0 only."""
        dimensions = len(self.spec.arrays[array].shape) + (self.section == "features")
        return join(self.directory, array, metadata.chunk_file(partition, dimensions))

    def receipt_directory(self, partition: int) -> str:
        """Folder of a partition's receipt; the writer of the partition locks it."""
        return partition_directory(self.receipts, partition)

    def documents(self, slots: int) -> dict[str, dict]:
        """Content of every zarr.json but those of receipts, by folder; the declaration of the feature is the last."""
        documents = {self.receipts: metadata.group()}
        for name, spec in sorted(self.spec.arrays.items()):
            if self.section == "assets":
                documents[f"{self.directory}/{name}"] = metadata.asset_array(name, spec)
            else:
                cut = (slots, self._per_partition, self.layouts[name].rows_per_chunk)
                documents[f"{self.directory}/{name}"] = metadata.sharded_array(name, spec, *cut)
        documents[self.directory] = metadata.group(metadata.seal(self.spec.attributes(), self.directory))
        return documents

    def publish_metadata(self, slots: int) -> None:
        """Write the `documents` that differ, after removing arrays that a dropped feature of the same name left."""
        for name in self._storage.folders(self.directory):
            folder = f"{self.directory}/{name}"
            ours = (parse_key(key) or self._storage.leftover(key) for key in self._storage.files(folder))
            if name not in self.spec.arrays and all(ours):
                self._storage.remove_tree(folder)
        for directory, document in self.documents(slots).items():
            metadata.publish_metadata(self._storage, directory, document)

    def check_identity(self, requested: FeatureSpec) -> None:
        """Compare the stored spec with the requested one.

        Raises:
            IdentityMismatch: names every differing field with both values.
        """
        differences = self.spec.differences(requested)
        if differences:
            lines = [f"  {field}: stored {stored!r}, wanted {value!r}" for field, stored, value in differences]
            raise IdentityMismatch(
                f"{self.section[:-1].capitalize()} {self.spec.name!r} was made differently:\n" + "\n".join(lines) + "\n"
                "Go back to the stored settings, give the new ones another name (slug) so that they become a "
                "feature beside it, or drop the stored one first (`sur drop STORE NAME`)."
            )

    def receipt(self, partition: int) -> Receipt | None:
        """Receipt of a partition that is done: intact, of this identity and these rows, and its files have full size.

        If it differs from the receipt of the last call, everything read of the partition is forgotten.
        """
        receipt = self._valid_receipt(partition)
        if receipt != self._done.get(partition):
            self._done.pop(partition, None)
            for reader in self.readers.values() if "readers" in vars(self) else ():
                reader.forget(partition)
            if receipt is not None:
                self._done[partition] = receipt
        return receipt

    def _valid_receipt(self, partition: int) -> Receipt | None:
        try:
            receipt = read_receipt(self._storage, self.receipt_directory(partition))
        except CorruptStore as error:
            logger.warning("%s Partition %d of %s counts as not done.", error.fault, partition, self.spec.name)
            return None
        if receipt is None or self.mismatch(receipt, partition):
            return None
        for name, shard in receipt.shards.items():
            key = self.key(name, partition)
            if self._storage.size(key) != shard.bytes:
                logger.warning("%s is gone or cut short: its partition counts as not done.", self._storage.where(key))
                return None
        return receipt

    def n_files(self) -> int:
        """Number of shards in the partitions that have a receipt file."""
        return len(partition_numbers(self._storage, self.receipts)) * len(self.spec.arrays)

    def mismatch(self, receipt: Receipt, partition: int) -> str:
        """Why a receipt does not belong to this partition; "" if it does."""
        if receipt.partition != partition:
            return f"receipt of partition {receipt.partition}"
        if receipt.identity_digest != self.spec.identity_digest:
            return "receipt of another identity"
        if self.rows_digest(partition) not in (None, receipt.rows_digest):
            return "receipt of other rows"
        if set(receipt.shards) != set(self.spec.arrays):
            return "receipt of other arrays"
        chunks = {name: layout.chunks if self.section == "features" else 1 for name, layout in self.layouts.items()}
        if any(shard.chunks != chunks[name] for name, shard in receipt.shards.items()):
            return "receipt of other chunks"
        return "receipt of more rows than a partition has" if receipt.rows > self._per_partition else ""

    def done(self, partition: int) -> Receipt:
        """Receipt of a partition that is done, from the last call of `receipt`.

        Raises:
            IncompleteFeature: the partition is not done.
        """
        if partition not in self._done and self.receipt(partition) is None:
            raise IncompleteFeature(
                f"{self.spec.name!r} has no values for partition {partition} yet. Finish the extraction."
            )
        return self._done[partition]

    def pack(self, partition: int, values: Values, rows: int, missing: Reasons, stats: Counts) -> Packed:
        """Check a partition's values and encode them as files; nothing is written, and nothing copied without need."""
        checked = self._checked(values, rows, missing, partition * self._per_partition)
        digest = self.rows_digest(partition) or ""
        files, shards = {}, {}
        for name in sorted(checked):
            pieces, crcs = self._encode(name, checked[name])
            files[self.key(name, partition)] = pieces
            shards[name] = ShardReceipt.of(sum(map(len, pieces)), crcs)
        reasons = {int(row): str(reason) for row, reason in missing.items()}
        counts = {str(key): int(value) for key, value in stats.items()}
        receipt = Receipt(self.spec.identity_digest, partition, rows, digest, shards, reasons, counts)
        return Packed(receipt, files)

    def publish(self, packed: Packed) -> Receipt:
        """Write a packed partition, the receipt last. The caller holds the partition's lock."""
        for key, pieces in packed.files.items():
            self._storage.publish(key, *pieces)
        publish_receipt(self._storage, self.receipt_directory(packed.receipt.partition), packed.receipt)
        return packed.receipt

    def read(self, slots: np.ndarray, arrays: Collection[str] | None) -> dict[str, np.ndarray]:
        """Rows of a feature at `slots`, int64 (n,), by array; `arrays` limits what is read."""
        return {name: reader.gather(slots) for name, reader in self._chosen_readers(arrays)}

    def read_partition(self, partition: int, rows: int, arrays: Collection[str] | None) -> dict[str, np.ndarray]:
        """The first `rows` rows of a partition of a feature, by array; `arrays` limits what is read."""
        return {name: reader.whole(partition, rows) for name, reader in self._chosen_readers(arrays)}

    def _chosen_readers(self, arrays: Collection[str] | None) -> list[tuple[str, ArrayReader]]:
        return [(name, reader) for name, reader in self.readers.items() if arrays is None or name in arrays]

    def read_asset(self) -> dict[str, np.ndarray]:
        """Whole arrays of an asset, every byte checked.

        Raises:
            CorruptStore: a checksum does not match.
        """
        arrays, receipt = {}, self.done(0)
        for name, spec in self.spec.arrays.items():
            where = self._storage.where(self.key(name, 0))
            data = self._storage.read(self.key(name, 0)) or b""
            content = without_crc(data, where)
            if data[-CRC_BYTES:] != receipt.shards[name].crcs().astype("<u4").tobytes():
                raise CorruptStore(f"{where} is not the file that its receipt names.")
            arrays[name] = np.frombuffer(bytearray(content), Layout(spec, 1).dtype).reshape(spec.shape)
        return arrays

    def _encode(self, name: str, values: np.ndarray) -> tuple[list[bytes | memoryview], np.ndarray]:
        if self.section == "features":
            return self.layouts[name].encode(values)
        data = with_crc(values.tobytes())
        return [data], np.frombuffer(data[-CRC_BYTES:], dtype="<u4")

    def _checked(self, values: Values, rows: int, missing: Reasons, first_slot: int) -> dict[str, np.ndarray]:
        name = self.spec.name
        if set(values) != set(self.spec.arrays):
            raise BadValues(f"{name}: expected arrays {sorted(self.spec.arrays)}, got {sorted(values)}.")
        if not all(0 <= row < rows for row in missing):
            raise BadValues(f"{name}: missing rows must lie in 0..{rows - 1}, got {sorted(missing)}.")
        checked = {}
        for key, spec in self.spec.arrays.items():
            what = f"{name}/{key}"
            stored = as_stored(np.asarray(values[key]), spec.dtype, what)
            expected = spec.shape if self.section == "assets" else (rows, *spec.shape)
            if stored.shape != expected:
                raise BadValues(f"{what}: expected shape {expected}, got {stored.shape}.")
            if missing:
                stored = stored.copy()
                stored[list(missing)] = 0
            if spec.keep_bits:
                stored = rounded(stored, spec.dtype, spec.keep_bits)  # may overflow, so it comes before the check
            if not all_finite(stored, spec.dtype):
                good = finite_mask(stored, spec.dtype)
                place = tuple(int(axis) for axis in np.argwhere(~good)[0])
                raise BadValues(
                    f"{what}: not finite at {place} (slot {first_slot + (place[0] if place else 0)}, "
                    f"{int((~good).sum())} such elements). Nothing was published; pass bad rows as `missing`."
                )
            checked[key] = stored
        return checked


def read_declaration(storage: Storage, section: str, name: str) -> FeatureSpec | None:
    """Spec of a stored feature or asset; None if it has no declaration.

    Raises:
        CorruptStore: the declaration is damaged, or is not one of this format.
    """
    directory = join(section, name)
    document = metadata.read_metadata(storage, directory)
    if document is None:
        return None
    attributes = metadata.unseal(document["attributes"], storage.where(directory), directory)
    try:
        return FeatureSpec.from_attributes(name, attributes)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        where = storage.where(join(directory, metadata.FILE))
        raise CorruptStore(f"{where}: not a declaration of this format: {error!r}.") from error


def missing_slots(receipts: Iterable[Receipt | None], rows_per_partition: int) -> dict[int, str]:
    """Slots without a value in the partitions of these receipts, with the reasons."""
    return {
        receipt.partition * rows_per_partition + row: reason
        for receipt in receipts
        if receipt is not None
        for row, reason in sorted(receipt.missing.items())
    }
