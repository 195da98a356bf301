"""The store: rows, features and assets in one Zarr v3 hierarchy, with receipts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cache import metadata
from cache.catalog import Catalog
from cache.describe import StoreSummary, summarize
from cache.errors import BadValues, CacheError, NewerFormat, StoreBusy
from cache.features import SECTIONS
from cache.files import PARTIAL, locked, sync_directory
from cache.receipts import Receipt
from cache.records import FeatureSpec, RowRecord
from cache.rows import Rows
from cache.verify import Damage, inspect


class Store:
    """A feature cache on a local disk; make one with `create`, `open` or `open_or_create`.

    Slots are numbered from 0; partition p holds slots p * rows_per_partition and on. Any number of processes
    may read and write at once. Readers see what was committed, writers lock what they write.
    """

    def __init__(self, path: Path, rows_per_partition: int, writable: bool) -> None:
        self.path = path
        self.rows_per_partition = rows_per_partition
        self.writable = writable
        self._rows = Rows(path, rows_per_partition)
        self._catalog = Catalog(path, self._rows, rows_per_partition)
        self._claimed: set[tuple[str, int]] = set()

    @classmethod
    def create(cls, path: str | Path, rows_per_partition: int = 512) -> Store:
        """Make an empty store at `path`, which must not hold one.

        Raises:
            CacheError: there is something at `path` already.
        """
        path = Path(path)
        with locked(path, wait=True):
            if metadata.read_metadata(path) is not None:
                raise CacheError(f"{path} holds a store already; open it, or choose another path.")
            return cls._create(path, rows_per_partition)

    @classmethod
    def open(cls, path: str | Path, writable: bool = False) -> Store:
        """Open an existing store.

        Raises:
            CacheError: no store at `path`.
            NewerFormat: it was written by a newer version.
            CorruptStore: its zarr.json is damaged.
        """
        path = Path(path)
        document = metadata.read_metadata(path)
        if document is None or "sur_cache" not in document["attributes"]:
            raise CacheError(f"{path} holds no feature store. Run an extraction first, or check the path.")
        sealed = document["attributes"]["sur_cache"]
        version = sealed.get("format_version") if isinstance(sealed, dict) else None
        if isinstance(version, int) and version > metadata.FORMAT_VERSION:
            raise NewerFormat(
                f"{path} has format version {version}, this package knows up to {metadata.FORMAT_VERSION}. "
                "Upgrade the package."
            )
        return cls(path, metadata.unseal(sealed, path)["rows_per_partition"], writable)

    @classmethod
    def open_or_create(cls, path: str | Path, rows_per_partition: int = 512) -> Store:
        """Open for writing, or create; an existing store keeps its own `rows_per_partition`."""
        path = Path(path)
        with locked(path, wait=True):
            if metadata.read_metadata(path) is None:
                return cls._create(path, rows_per_partition)
        return cls.open(path, writable=True)

    @classmethod
    def _create(cls, path: Path, rows_per_partition: int) -> Store:
        if rows_per_partition < 1:
            raise BadValues(f"rows_per_partition must be at least 1, got {rows_per_partition}.")
        ours = {"rows", *SECTIONS, "receipts", metadata.FILE + PARTIAL}
        if foreign := sorted({entry.name for entry in path.iterdir()} - ours):
            raise CacheError(f"{path} is not empty ({foreign[0]!r} is no part of a store); choose another path.")
        store = cls(path, rows_per_partition, writable=True)
        for name in metadata.GROUPS:
            metadata.publish_metadata(path / name, metadata.group())
        store._rows.publish_metadata()
        metadata.publish_metadata(path, metadata.root(rows_per_partition))
        return store

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
            for partial in (
                *self.path.glob(f"rows/*/*{PARTIAL}"),
                *self.path.glob(f"receipts/rows/*/*{PARTIAL}"),
            ):
                partial.unlink()
            added = self._rows.append(rows)
            self._publish_shapes()
        return added

    def rows(self, partition: int | None = None) -> list[RowRecord]:
        """Stored rows with their slots, of one partition or all."""
        partitions = range(self.n_partitions) if partition is None else [partition]
        return [record for p in partitions for record in self._rows.records(p)]

    def row_ids(self) -> np.ndarray:
        """Ids of all slots, uint8 (slots, 16); zero where a slot is empty."""
        return self._rows.slot_ids()

    def ensure_feature(self, spec: FeatureSpec) -> None:
        """Create the feature, or check that the stored one was made alike.

        Raises:
            IdentityMismatch: names every differing field; nothing is changed.
        """
        self._ensure("features", spec)

    def features(self) -> dict[str, FeatureSpec]:
        """Specs of the stored features, by name."""
        return {name: self._catalog.get(name).spec for name in self._catalog.names("features")}

    def spec(self, feature: str) -> FeatureSpec:
        """Spec of one stored feature.

        Raises:
            UnknownFeature: names those that exist.
        """
        return self._catalog.get(feature).spec

    def assets(self) -> dict[str, FeatureSpec]:
        """Specs of the stored assets, by name."""
        return {name: self._catalog.get(name, "assets").spec for name in self._catalog.names("assets")}

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
        with locked(directory, wait) as ours:
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
        rows = len(self._rows.ids(partition))
        return self._catalog.get(feature).write(partition, values, rows, missing or {}, stats or {})

    def discard(self, feature: str, partition: int) -> None:
        """Remove the receipt of a feature's partition, or of an asset (partition 0), to have it computed anew."""
        self._need_writable()
        section = "features" if feature in self._catalog.names("features") else "assets"
        directory = self._catalog.get(feature, section).receipt_directory(partition)
        with locked(directory, wait=True):
            (directory / metadata.FILE).unlink(missing_ok=True)
            sync_directory(directory)
        self._catalog.forget(feature, section)

    def receipt(self, feature: str, partition: int) -> Receipt | None:
        """Receipt of a done partition, None if it is not done."""
        return self._catalog.get(feature).receipt(partition)

    def receipts(self, feature: str) -> list[Receipt | None]:
        """`receipt` of every partition that holds rows."""
        return [self.receipt(feature, p) for p in range(self.n_partitions)]

    def missing(self, feature: str) -> dict[int, str]:
        """Slots of done partitions without a value, with the reason."""
        return {
            receipt.partition * self.rows_per_partition + row: reason
            for receipt in self.receipts(feature)
            if receipt is not None
            for row, reason in sorted(receipt.missing.items())
        }

    def read(self, feature: str, slots: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Stored elements at `slots` (n,), or at every filled slot in order; bfloat16 as uint16 bits.

        Missing rows read as zeros. Every chunk is checked against its receipt on the first touch.

        Raises:
            IncompleteFeature: a slot's partition is not done.
            CorruptStore: a checksum does not match.
            IndexError: a slot that holds no row.
        """
        readers = self._catalog.get(feature).readers
        slots = np.flatnonzero(self.filled()) if slots is None else np.asarray(slots, dtype=np.int64)
        counts = self._rows.counts()
        partitions, places = np.divmod(slots, self.rows_per_partition)
        empty = (slots < 0) | (partitions >= len(counts))
        empty[~empty] = places[~empty] >= counts[partitions[~empty]]
        if empty.any():
            raise IndexError(f"Slot {slots[empty][0]} holds no row ({int(empty.sum())} such slots asked for).")
        return {name: reader.gather(slots) for name, reader in readers.items()}

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
        with locked(asset.receipt_directory(0), wait=True):
            if asset.receipt(0) is None:
                asset.write(0, values, 0, {}, {})

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
        return inspect(self.path, self.rows_per_partition, progress)

    def describe(self) -> StoreSummary:
        """What is in the store, for people and programs."""
        return summarize(self, self._catalog.all())

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
        with locked(self.path, wait=True):
            yield

    def _need_writable(self) -> None:
        if not self.writable:
            raise CacheError(f"{self.path} was opened for reading; open it with writable=True.")
