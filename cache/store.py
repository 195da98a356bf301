"""The store: rows, features and assets in one Zarr v3 hierarchy, with receipts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from sur.cache.contents import datasets
from sur.cache.contents.assets import has_asset, write_asset
from sur.cache.contents.catalog import Catalog
from sur.cache.contents.claims import Claims
from sur.cache.contents.features import SECTIONS, Counts, Feature, Packed, Reasons, Values, missing_slots
from sur.cache.contents.opening import create_store, open_or_create_store, open_store, store_exists
from sur.cache.contents.rows import Rows
from sur.cache.errors import CacheError, StoreBusy
from sur.cache.format import metadata
from sur.cache.format.dtypes import to_float32
from sur.cache.format.receipts import Receipt
from sur.cache.format.root import read_root
from sur.cache.format.shard import Layout
from sur.cache.format.spec import FeatureSpec, RowRecord
from sur.cache.storage.base import Storage, open_storage
from sur.cache.upkeep.describe import StoreSummary, summarize
from sur.cache.upkeep.repair import repair
from sur.cache.upkeep.verify import Damage, verify


class Store:
    """A feature cache on a local disk or in object storage; make one with `create`, `open` or `open_or_create`.

    A `path` is a folder or a URL (s3://bucket/prefix). Slots are numbered from 0; partition p holds slots from
    p * rows_per_partition on. Any number of processes may read and write at once: readers see what is committed,
    writers lock what they write. Values of bfloat16 are uint16 bit patterns, read and written.

    Raises:
        UnknownFeature: a method gets the name of a feature that is not stored; the message lists the stored ones.
        IncompleteFeature, CorruptStore: on reading, a partition is not done, or bytes do not match their checksum.
        DiskFull, NotWritable: on writing, the disk is full or may not be written.
        CacheError: on writing, the store was opened for reading.
    """

    def __init__(self, storage: Storage, rows_per_partition: int, writable: bool) -> None:
        self.rows_per_partition = rows_per_partition
        self.writable = writable
        self._storage = storage
        self._claims = Claims(storage)
        self._rows = Rows(storage, rows_per_partition)
        self._catalog = Catalog(storage, self._rows, rows_per_partition)

    @classmethod
    def exists(cls, path: str | Path) -> bool:
        """Whether there is a store at `path`, be its zarr.json lost or not."""
        return store_exists(open_storage(path))

    @classmethod
    def create(cls, path: str | Path, rows_per_partition: int = 512) -> Store:
        """Make an empty store at `path`. Raises CacheError when there is something already."""
        return cls(*create_store(path, rows_per_partition), writable=True)

    @classmethod
    def open(cls, path: str | Path, writable: bool = False, recover: bool = False) -> Store:
        """Open an existing store; `recover` opens one with a damaged zarr.json too, to verify and repair it.

        Raises:
            CacheError, NewerFormat, CorruptStore: no store, one of a newer version, or its zarr.json is damaged.
        """
        return cls(*open_store(path, recover), writable)

    @classmethod
    def open_or_create(cls, path: str | Path, rows_per_partition: int = 512) -> Store:
        """Open for writing, or create; an existing store keeps its own `rows_per_partition`."""
        return cls(*open_or_create_store(path, rows_per_partition), writable=True)

    @property
    def path(self) -> str | Path:
        """Folder or URL of the store."""
        return self._storage.location

    @property
    def random_reads(self) -> bool:
        """Whether the storage reads single rows in random order cheaply, as a local disk does."""
        return self._storage.random_reads

    @property
    def n_partitions(self) -> int:
        """Number of partitions that hold rows."""
        return self._rows.n_partitions

    @property
    def n_rows(self) -> int:
        """Number of stored rows (filled slots)."""
        return int(self._rows.counts().sum())

    def add_rows(self, rows: Iterable[RowRecord]) -> int:
        """Append rows with new ids in new partitions; returns how many were new. Raises BadValues for a wrong id."""
        with self._locked():
            added = self._rows.append(rows)
            self._publish_shapes()
        return added

    def rows(self, partition: int | None = None) -> list[RowRecord]:
        """Stored rows with their slots, of one partition or of all."""
        partitions = range(self.n_partitions) if partition is None else [partition]
        return [record for records in self._storage.map(self._rows.records, partitions) for record in records]

    def row_ids(self) -> np.ndarray:
        """Ids of all slots, uint8 (slots, 16); zero where a slot is empty."""
        return self._rows.slot_ids()

    def filled(self) -> np.ndarray:
        """Which slots hold a row, bool (slots,)."""
        return (np.arange(self.rows_per_partition) < self._rows.counts()[:, None]).reshape(-1)

    def replaced(self) -> bool:
        """Whether the store at this path was removed and made anew since this object opened it."""
        return read_root(self._storage) != self.rows_per_partition or self._rows.replaced()

    def datasets(self) -> list[str]:
        """Names of the data sets."""
        return datasets.dataset_names(self._storage)

    def members(self, dataset: str) -> np.ndarray:
        """Which slots hold a row that a data set has now, bool (slots,). Raises CacheError when it does not exist."""
        return datasets.read_members(self._storage, self._rows, dataset)

    def places(self, dataset: str) -> dict[int, str]:
        """Where a data set's pictures are now, by slot, for those that are not where the row was added."""
        return datasets.read_places(self._storage, dataset)

    def set_members(self, dataset: str, ids: Iterable[bytes], places: datasets.Places | None = None) -> tuple[int, int]:
        """Make a data set exactly the rows of these ids; returns how many rows left it, and how many it has now.

        places: where pictures are now. Raises BadValues, and changes nothing, for a wrong name or an unknown id.
        """
        with self._locked():
            return datasets.write_members(
                self._storage, self._rows, self.rows_per_partition, dataset, ids, places or {}
            )

    def ensure_feature(self, spec: FeatureSpec) -> None:
        """Create the feature. Raises IdentityMismatch, which names the fields, if a stored one was made differently."""
        self._ensure("features", spec)

    def features(self, strict: bool = False) -> dict[str, FeatureSpec]:
        """Specs of the stored features, by name. One with a damaged declaration is left out, with a warning.

        `strict`: it is a CorruptStore instead, in an asset too.
        """
        if strict:
            self._catalog.whole("assets")
        features = self._catalog.whole("features") if strict else self._catalog.intact("features")
        return {feature.spec.name: feature.spec for feature in features}

    def spec(self, feature: str) -> FeatureSpec:
        """Spec of one stored feature."""
        return self._catalog.get(feature).spec

    def layouts(self, feature: str) -> Mapping[str, Layout]:
        """Layout of the shards of each array of a feature, by array."""
        return self._catalog.get(feature).layouts

    def receipt(self, feature: str, partition: int) -> Receipt | None:
        """Receipt of a partition; None if it is not done."""
        return self._catalog.get(feature).receipt(partition)

    def receipts(self, feature: str, partitions: Iterable[int] | None = None) -> list[Receipt | None]:
        """Receipts of these partitions, or of all that hold rows; None for each one that is not done."""
        numbers = range(self.n_partitions) if partitions is None else partitions
        return self._storage.map(self._catalog.get(feature).receipt, numbers)

    def pending(self, feature: str) -> list[int]:
        """Partitions that hold rows but no matching receipt of the feature."""
        return [p for p, receipt in enumerate(self.receipts(feature)) if receipt is None]

    def missing(self, feature: str) -> dict[int, str]:
        """Slots without a value in the partitions that are done, with the reasons."""
        return missing_slots(self.receipts(feature), self.rows_per_partition)

    def claim(self, feature: str, partition: int, wait: bool = False) -> AbstractContextManager[bool]:
        """Lock one partition of a feature for writing during a block; gives True if it is locked here and still to do.

        Gives False if it is done already or, unless `wait`, if another writer holds the lock.
        """
        self._need_writable()
        return self._claims.claim(self._catalog, feature, partition, wait)

    def write_partition(
        self, feature: str, partition: int, values: Values, missing: Reasons | None = None, stats: Counts | None = None
    ) -> Receipt:
        """Publish the values of a partition's rows, in slot order; a partition that is done is left alone.

        `missing` maps the place of a row in the partition to the reason why it has no value (zeros are stored).

        Raises:
            BadValues, StoreBusy: wrong arrays, shape, dtype, or not finite; another writer holds the partition.
        """
        if (feature, partition) in self._claims:
            return self.publish_partition(feature, self.pack_partition(feature, partition, values, missing, stats))
        with self.claim(feature, partition) as to_do:
            if to_do:
                return self.write_partition(feature, partition, values, missing, stats)
        receipt = self.receipt(feature, partition)
        if receipt is None:
            raise StoreBusy(f"Another writer holds partition {partition} of {feature!r}; skip it or wait.")
        return receipt

    def pack_partition(
        self, feature: str, partition: int, values: Values, missing: Reasons | None = None, stats: Counts | None = None
    ) -> Packed:
        """The first half of `write_partition`: check the values and encode them as files in memory.

        Values of codec `raw` are not copied: do not change them until they are published.
        """
        rows = len(self._rows.ids(partition))
        return self._catalog.get(feature).pack(partition, values, rows, missing or {}, stats or {})

    def publish_partition(self, feature: str, packed: Packed) -> Receipt:
        """The second half: write the files, then the receipt, in any thread. Raises StoreBusy without a claim."""
        self._claims.require(feature, packed.receipt.partition)
        return self._catalog.get(feature).publish(packed)

    def discard(self, feature: str, partition: int) -> None:
        """Remove the receipt of a partition, or of an asset (partition 0), so that it is computed anew."""
        self._need_writable()
        self._catalog.discard(feature, partition)

    def read(
        self, feature: str, slots: np.ndarray | None = None, arrays: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Stored elements at `slots`, int64 (n,), or at every filled slot in order: (n, *row shape) by array.

        `arrays` limits what is read. Missing rows are zeros. A chunk is checked when it is first touched. Raises
        IndexError when a slot holds no row.
        """
        slots = np.flatnonzero(self.filled()) if slots is None else np.asarray(slots, dtype=np.int64)
        self._rows.require(slots)
        return self._catalog.get(feature).read(slots, arrays)

    def read_float32(self, feature: str, slots: np.ndarray, array: str) -> np.ndarray:
        """One array of a feature at `slots`, int64 (n,): float32 (n, *row shape)."""
        return to_float32(self.read(feature, slots, {array})[array], self.spec(feature).arrays[array].dtype)

    def read_partition(
        self, feature: str, partition: int, arrays: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Stored elements of a partition's rows in slot order, or of some `arrays`; every chunk is checked."""
        return self._catalog.get(feature).read_partition(partition, len(self._rows.ids(partition)), arrays)

    def assets(self) -> dict[str, FeatureSpec]:
        """Specs of the stored assets, by name."""
        return {asset.spec.name: asset.spec for asset in self._catalog.intact("assets")}

    def write_asset(self, spec: FeatureSpec, values: Mapping[str, np.ndarray]) -> None:
        """Store arrays that belong to no row, unless they are stored already. Raises IdentityMismatch or BadValues."""
        self._ensure("assets", spec)
        write_asset(self._storage, self._catalog, spec, values)

    def read_asset(self, name: str) -> dict[str, np.ndarray]:
        """Arrays of an asset, every byte checked."""
        return self._catalog.get(name, "assets").read_asset()

    def has_asset(self, spec: FeatureSpec) -> bool:
        """Whether an asset is stored in full. Raises IdentityMismatch when it was made differently."""
        return has_asset(self._catalog, spec)

    def drop_feature(self, name: str) -> None:
        """Remove a feature or an asset with all its values, or else a data set of this name; rows stay."""
        with self._locked():
            if not self._catalog.drop(name):
                datasets.drop_members(self._storage, self.rows_per_partition, name)

    def verify(self, progress: Callable[[str], None] | None = None) -> list[Damage]:
        """Damage found by checking every file against checksums, receipts and metadata; `progress` gets each file."""
        return verify(self._storage, self.rows_per_partition, progress)

    def n_files(self) -> int:
        """Number of files with a receipt, of rows, features and assets: those that `verify` reads."""
        return self._rows.n_files() + sum(feature.n_files() for feature in self._features_and_assets())

    def repair(self, damages: Sequence[Damage], records: Sequence[RowRecord] = ()) -> list[Damage]:
        """Mend the damage that `verify` found, for the next extraction to recompute what is broken (upkeep/repair.py).

        `records`, the rows of the data source, help where rows are damaged. Returns the damage that is beyond repair.
        """
        with self._locked():
            beyond = repair(self._storage, self.rows_per_partition, damages, records)
        self._rows = Rows(self._storage, self.rows_per_partition)
        self._catalog = Catalog(self._storage, self._rows, self.rows_per_partition)
        return beyond

    def describe(self) -> StoreSummary:
        """A summary of the store's contents, for people and programs."""
        sizes = (self.rows_per_partition, self.n_partitions, self.n_rows)
        return summarize(self.path, *sizes, self._features_and_assets())

    def _features_and_assets(self) -> list[Feature]:
        return [feature for section in SECTIONS for feature in self._catalog.intact(section)]

    def _ensure(self, section: str, spec: FeatureSpec) -> None:
        with self._locked():
            self._catalog.ensure(section, spec, self._rows.n_slots())
            self._publish_shapes()

    def _publish_shapes(self) -> None:
        self._rows.publish_metadata()
        self._catalog.resize(self._rows.n_slots())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._need_writable()
        with self._storage.locked("", wait=True):
            metadata.drop_consolidated(self._storage)
            yield

    def _need_writable(self) -> None:
        if not self.writable:
            raise CacheError(f"{self.path} was opened for reading; open it with writable=True.")
