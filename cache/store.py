"""The store: rows, features and assets in one Zarr v3 hierarchy, with receipts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sur.cache.contents.catalog import Catalog
from sur.cache.contents.datasets import dataset_names, read_members, write_members
from sur.cache.contents.features import Packed
from sur.cache.contents.reader import ArrayReader
from sur.cache.contents.rows import RECEIPTS, TEXTS, Rows
from sur.cache.errors import CacheError, StoreBusy
from sur.cache.format import metadata
from sur.cache.format.dtypes import to_float32
from sur.cache.format.receipts import Receipt
from sur.cache.format.root import read_root, recover_root, require_free, write_root
from sur.cache.format.shard import Layout
from sur.cache.format.spec import FeatureSpec, RowRecord
from sur.cache.storage.base import Storage, join, open_storage
from sur.cache.upkeep.describe import StoreSummary, summarize
from sur.cache.upkeep.repair import repair
from sur.cache.upkeep.verify import Damage, verify


class Store:
    """A feature cache on a local disk or in object storage; make one with `create`, `open` or `open_or_create`.

    A `path` is a folder or a URL (s3://bucket/prefix). Slots are numbered from 0; partition p holds slots
    p * rows_per_partition and on. Any number of processes may read and write at once. Readers see what was
    committed, writers lock what they write.
    """

    def __init__(self, storage: Storage, rows_per_partition: int, writable: bool) -> None:
        self.rows_per_partition = rows_per_partition
        self.writable = writable
        self._storage = storage
        self._rows = Rows(storage, rows_per_partition)
        self._catalog = Catalog(storage, self._rows, rows_per_partition)
        self._claimed: set[tuple[str, int]] = set()

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        """Whether there is a store at `path`."""
        return metadata.read_metadata(open_storage(path), "") is not None

    @classmethod
    def create(cls, path: str | Path, rows_per_partition: int = 512) -> Store:
        """Make an empty store at `path`, which must not hold one.

        Raises:
            CacheError: there is something at `path` already.
        """
        storage = open_storage(path)
        with storage.locked("", wait=True):
            if metadata.read_metadata(storage, "") is not None:
                raise CacheError(f"{path} holds a store already; open it, or choose another path.")
            return cls._create(storage, rows_per_partition)

    @classmethod
    def open(cls, path: str | Path, writable: bool = False, recover: bool = False) -> Store:
        """Open an existing store; `recover`: also one whose own zarr.json is damaged, to verify and repair it.

        Raises:
            CacheError: no store at `path`.
            NewerFormat: it was written by a newer version.
            CorruptStore: its zarr.json is damaged.
        """
        storage = open_storage(path)
        recovered = recover_root(storage) if recover else None
        return cls(storage, read_root(storage) if recovered is None else recovered, writable)

    @classmethod
    def open_or_create(cls, path: str | Path, rows_per_partition: int = 512) -> Store:
        """Open for writing, or create; an existing store keeps its own `rows_per_partition`."""
        storage = open_storage(path)
        with storage.locked("", wait=True):
            if metadata.read_metadata(storage, "") is None:
                return cls._create(storage, rows_per_partition)
            size = read_root(storage)
            write_root(storage, size)
        return cls(storage, size, writable=True)

    @classmethod
    def _create(cls, storage: Storage, rows_per_partition: int) -> Store:
        require_free(storage, rows_per_partition)
        store = cls(storage, rows_per_partition, writable=True)
        store._rows.publish_metadata()
        write_root(storage, rows_per_partition)
        return store

    @property
    def path(self) -> str | Path:
        """Where the store is: a folder, or a URL."""
        return self._storage.location

    @property
    def n_partitions(self) -> int:
        """Partitions that hold rows."""
        return self._rows.n_partitions

    @property
    def n_rows(self) -> int:
        """Rows stored (filled slots)."""
        return int(self._rows.counts().sum())

    def add_rows(self, rows: Iterable[RowRecord]) -> int:
        """Append rows whose ids are new, in new partitions, and commit them; returns how many were new.

        Raises:
            BadValues: an id that is not 16 bytes.
        """
        with self._locked():
            for folder in ("rows", RECEIPTS):
                self._storage.clear_leftovers(folder)
            added = self._rows.append(rows)
            self._publish_shapes()
        return added

    def rows(self, partition: int | None = None) -> list[RowRecord]:
        """Stored rows with their slots, of one partition or all."""
        partitions = range(self.n_partitions) if partition is None else [partition]
        return [record for records in self._storage.every(self._rows.records, partitions) for record in records]

    def row_ids(self) -> np.ndarray:
        """Ids of all slots, uint8 (slots, 16); zero where a slot is empty."""
        return self._rows.slot_ids()

    def replaced(self) -> bool:
        """Whether other rows lie at this place than those this object knows: the store was removed and made anew."""
        if read_root(self._storage) != self.rows_per_partition:
            return True
        return self.n_partitions > 0 and self._rows.receipt(0).rows_digest != self._rows.digest(0)

    def set_members(self, dataset: str, ids: Iterable[bytes]) -> tuple[int, int]:
        """Make a data set exactly the rows of these ids; returns how many left it, and how many it has now.

        Raises:
            BadValues: an id that the store does not hold; nothing is changed.
        """
        with self._locked():
            return write_members(self._storage, self._rows, dataset, ids)

    def members(self, dataset: str) -> np.ndarray:
        """Which slots hold a row that a data set has now, bool (slots,).

        Raises:
            CacheError: no such data set; names those that exist.
        """
        return read_members(self._storage, dataset, self._slots())

    def datasets(self) -> list[str]:
        """Names of the data sets."""
        return dataset_names(self._storage)

    def ensure_feature(self, spec: FeatureSpec) -> None:
        """Create the feature, or check that the stored one was made alike.

        Raises:
            IdentityMismatch: names every differing field; nothing is changed.
        """
        self._ensure("features", spec)

    def features(self) -> dict[str, FeatureSpec]:
        """Specs of the stored features, by name; those whose declaration is damaged are left out, said in the log."""
        return {feature.spec.name: feature.spec for feature in self._catalog.intact("features")}

    def spec(self, feature: str) -> FeatureSpec:
        """Spec of one stored feature.

        Raises:
            UnknownFeature: names those that exist.
        """
        return self._catalog.get(feature).spec

    def assets(self) -> dict[str, FeatureSpec]:
        """Specs of the stored assets, by name."""
        return {asset.spec.name: asset.spec for asset in self._catalog.intact("assets")}

    def pending(self, feature: str) -> list[int]:
        """Partitions that hold rows but no matching receipt of the feature."""
        return [p for p, receipt in enumerate(self.receipts(feature)) if receipt is None]

    @contextmanager
    def claim(self, feature: str, partition: int, wait: bool = False) -> Iterator[bool]:
        """Lock one partition of a feature for writing; yields True if it is ours and still to do.

        Yields False if it is done already, or, unless `wait`, if another writer holds it.
        """
        self._need_writable()
        directory = self._catalog.get(feature, fresh=True).receipt_directory(partition)
        with self._storage.locked(directory, wait) as ours:
            todo = ours and self.receipt(feature, partition) is None
            if todo:
                self._claimed.add((feature, partition))
            try:
                yield todo
            finally:
                if todo:
                    self._claimed.discard((feature, partition))

    def write_partition(
        self,
        feature: str,
        partition: int,
        values: Mapping[str, np.ndarray],
        missing: Mapping[int, str] | None = None,
        stats: Mapping[str, int] | None = None,
    ) -> Receipt:
        """Publish the values of a partition's filled slots, in order; a done partition is left alone.

        `missing` maps a row's place in the partition to the reason why it has no value (zeros are stored).

        Raises:
            BadValues: wrong arrays, shape or dtype, or not finite; nothing was published.
            StoreBusy: another writer holds the partition.
            DiskFull: no space left.
        """
        if (feature, partition) not in self._claimed:
            with self.claim(feature, partition) as ours:
                if ours:
                    return self.write_partition(feature, partition, values, missing, stats)
            done = self.receipt(feature, partition)
            if done is None:
                raise StoreBusy(f"Another writer holds partition {partition} of {feature!r}; skip it or wait.")
            return done
        return self.publish_partition(feature, self.pack_partition(feature, partition, values, missing, stats))

    def pack_partition(
        self,
        feature: str,
        partition: int,
        values: Mapping[str, np.ndarray],
        missing: Mapping[int, str] | None = None,
        stats: Mapping[str, int] | None = None,
    ) -> Packed:
        """The first half of `write_partition`: check the values and make files of them, in memory.

        Values that need no packing are not copied: leave them alone until they are published.

        Raises:
            BadValues: as `write_partition`.
        """
        rows = len(self._rows.ids(partition))
        return self._catalog.get(feature).pack(partition, values, rows, missing or {}, stats or {})

    def publish_partition(self, feature: str, packed: Packed) -> Receipt:
        """The second half: write the files, then the receipt. The partition is claimed; any thread may do it.

        Raises:
            StoreBusy: it is not claimed.
            DiskFull, NotWritable: as `write_partition`.
        """
        if (feature, packed.receipt.partition) not in self._claimed:
            raise StoreBusy(
                f"Partition {packed.receipt.partition} of {feature!r} has to be claimed before it is written."
            )
        return self._catalog.get(feature).publish(packed)

    def discard(self, feature: str, partition: int) -> None:
        """Remove the receipt of a feature's partition, or of an asset (partition 0), to have it computed anew."""
        self._need_writable()
        section = "features" if feature in self._catalog.names("features") else "assets"
        directory = self._catalog.get(feature, section).receipt_directory(partition)
        with self._storage.locked(directory, wait=True):
            self._storage.remove(join(directory, metadata.FILE))
        self._catalog.forget(feature, section)

    def receipt(self, feature: str, partition: int) -> Receipt | None:
        """Receipt of a done partition, None if it is not done."""
        return self._catalog.get(feature).receipt(partition)

    def receipts(self, feature: str, partitions: Iterable[int] | None = None) -> list[Receipt | None]:
        """`receipt` of these partitions, or of all that hold rows."""
        wanted = range(self.n_partitions) if partitions is None else partitions
        return self._storage.every(self._catalog.get(feature).receipt, wanted)

    def missing(self, feature: str) -> dict[int, str]:
        """Slots of done partitions without a value, with the reason."""
        return {
            receipt.partition * self.rows_per_partition + row: reason
            for receipt in self.receipts(feature)
            if receipt is not None
            for row, reason in sorted(receipt.missing.items())
        }

    def read(
        self, feature: str, slots: np.ndarray | None = None, arrays: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Stored elements at `slots` (n,), or at every filled slot in order; bfloat16 as uint16 bits.

        `arrays`: only these. Missing rows read as zeros. Every chunk is checked against its receipt on the first touch.

        Raises:
            IncompleteFeature: a slot's partition is not done.
            CorruptStore: a checksum does not match.
            IndexError: a slot that holds no row.
        """
        slots = np.flatnonzero(self.filled()) if slots is None else np.asarray(slots, dtype=np.int64)
        self._rows.require(slots)
        return {name: reader.gather(slots) for name, reader in self._readers(feature, arrays)}

    def read_float32(self, feature: str, slots: np.ndarray, array: str) -> np.ndarray:
        """One array of a feature at `slots`, int64 (n,): float32 (n, ...).

        Raises:
            IncompleteFeature, CorruptStore: as `read`.
        """
        return to_float32(self.read(feature, slots, {array})[array], self.spec(feature).arrays[array].dtype)

    def read_partition(
        self, feature: str, partition: int, arrays: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Stored elements of a partition's rows in order, read shard by shard; every chunk is checked.

        `arrays`: only these.

        Raises:
            IncompleteFeature, CorruptStore: as `read`.
        """
        rows = len(self._rows.ids(partition))
        return {name: reader.whole(partition, rows) for name, reader in self._readers(feature, arrays)}

    def _readers(self, feature: str, arrays: Collection[str] | None) -> list[tuple[str, ArrayReader]]:
        readers = self._catalog.get(feature).readers
        return [(name, reader) for name, reader in readers.items() if arrays is None or name in arrays]

    def layouts(self, feature: str) -> Mapping[str, Layout]:
        """How each array of a feature lies in its shards."""
        return self._catalog.get(feature).layouts

    @property
    def random_reads(self) -> bool:
        """Whether the store's storage reads single rows here and there cheaply (a local disk does)."""
        return self._storage.random_reads

    def filled(self) -> np.ndarray:
        """Which slots hold a row, bool (slots,)."""
        return (np.arange(self.rows_per_partition) < self._rows.counts()[:, None]).reshape(-1)

    def write_asset(self, spec: FeatureSpec, values: Mapping[str, np.ndarray]) -> None:
        """Store arrays that belong to no row; an asset that is there already, made alike, is left alone.

        Raises:
            IdentityMismatch, BadValues, DiskFull: as for features.
        """
        self._ensure("assets", spec)
        asset = self._catalog.get(spec.name, "assets")
        with self._storage.locked(asset.receipt_directory(0), wait=True):
            if asset.receipt(0) is None:
                asset.publish(asset.pack(0, values, 0, {}, {}))

    def read_asset(self, name: str) -> dict[str, np.ndarray]:
        """Arrays of an asset, checked; bfloat16 as uint16 bits.

        Raises:
            UnknownFeature, IncompleteFeature, CorruptStore
        """
        return self._catalog.get(name, "assets").read_asset()

    def has_asset(self, spec: FeatureSpec) -> bool:
        """Whether the asset is stored in full.

        Raises:
            IdentityMismatch: it is stored, but was made differently.
        """
        if spec.name not in self.assets():
            return False
        asset = self._catalog.get(spec.name, "assets")
        asset.check_identity(spec)
        return asset.receipt(0) is not None

    def drop_feature(self, name: str) -> None:
        """Remove a feature (or an asset) and all its values."""
        with self._locked():
            self._catalog.drop(name)

    def verify(self, progress: Callable[[str], None] | None = None) -> list[Damage]:
        """Check every file against checksums, receipts and metadata; `progress` hears of each file."""
        return verify(self._storage, self.rows_per_partition, progress)

    def n_files(self) -> int:
        """Files of rows, features and assets that have receipts: what `verify` reads."""
        held = self._catalog.intact("features") + self._catalog.intact("assets")
        return (1 + len(TEXTS)) * len(self._storage.folders(RECEIPTS)) + sum(feature.n_files() for feature in held)

    def repair(self, damages: Sequence[Damage], records: Sequence[RowRecord] = ()) -> list[Damage]:
        """Mend what `verify` found, so that the next extraction recomputes just what is broken (upkeep/repair.py).

        `records`, the rows of the data source, help where rows are damaged. Returns what is beyond repair.
        """
        with self._locked():
            beyond = repair(self._storage, self.rows_per_partition, damages, records)
        self._rows = Rows(self._storage, self.rows_per_partition)
        self._catalog = Catalog(self._storage, self._rows, self.rows_per_partition)
        return beyond

    def describe(self) -> StoreSummary:
        """What is in the store, for people and programs."""
        return summarize(
            self.path,
            self.rows_per_partition,
            self.n_partitions,
            self.n_rows,
            self._catalog.intact("features") + self._catalog.intact("assets"),
        )

    def _ensure(self, section: str, spec: FeatureSpec) -> None:
        with self._locked():
            self._catalog.ensure(section, spec, self._slots())
            self._publish_shapes()

    def _publish_shapes(self) -> None:
        self._rows.publish_metadata()
        self._catalog.resize(self._slots())

    def _slots(self) -> int:
        return self.n_partitions * self.rows_per_partition

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._need_writable()
        with self._storage.locked("", wait=True):
            yield

    def _need_writable(self) -> None:
        if not self.writable:
            raise CacheError(f"{self.path} was opened for reading; open it with writable=True.")
