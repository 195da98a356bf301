"""Which features and assets a store holds: found, made, checked and dropped by name."""

from __future__ import annotations

import shutil
from pathlib import Path

from cache import metadata
from cache.errors import StoreBusy, UnknownFeature
from cache.features import SECTIONS, Feature
from cache.files import busy, sync_directory
from cache.records import FeatureSpec
from cache.rows import Rows


class Catalog:
    """Features and assets of one store. Whoever calls `ensure`, `resize` or `drop` holds the store's lock."""

    def __init__(self, root: Path, rows: Rows, rows_per_partition: int) -> None:
        self._root = root
        self._rows = rows
        self._per_partition = rows_per_partition
        self._known: dict[tuple[str, str], Feature] = {}

    def names(self, section: str) -> list[str]:
        """Names in a section, "features" or "assets"."""
        return sorted(file.parent.name for file in (self._root / section).glob(f"*/{metadata.FILE}"))

    def get(self, name: str, section: str = "features", fresh: bool = False) -> Feature:
        """A stored feature, remembered; `fresh` looks whether another process has replaced it since.

        Raises:
            UnknownFeature: names those that exist.
            CorruptStore: its declaration is damaged.
        """
        if fresh or (section, name) not in self._known:
            directory = self._root / section / name
            document = metadata.read_metadata(directory)
            if document is None:
                stored = ", ".join(self.names(section)) or "none"
                raise UnknownFeature(f"{self._root} holds no {section[:-1]} {name!r}. It holds: {stored}.")
            spec = FeatureSpec.from_attributes(name, metadata.unseal(document["attributes"], directory))
            known = self._known.get((section, name))
            if known is None or known.spec != spec:
                self._known[(section, name)] = self._feature(section, spec)
        return self._known[(section, name)]

    def all(self) -> list[Feature]:
        """Every feature, then every asset."""
        return [self.get(name, section) for section in SECTIONS for name in self.names(section)]

    def ensure(self, section: str, spec: FeatureSpec, slots: int) -> None:
        """Create, or check identity and complete what an interrupted creation left.

        Raises:
            IdentityMismatch: the stored one was made differently.
        """
        if spec.name in self.names(section):
            feature = self.get(spec.name, section, fresh=True)
            feature.check_identity(spec)
        else:
            feature = self._feature(section, spec)
            self._known[(section, spec.name)] = feature
        feature.publish_metadata(slots)

    def resize(self, slots: int) -> None:
        """Give every feature's arrays so many slots."""
        for name in self.names("features"):
            self.get(name, fresh=True).publish_metadata(slots)

    def drop(self, name: str) -> None:
        """Remove a feature (or else an asset): its declaration first, so that a kill leaves no half feature.

        Raises:
            StoreBusy: it is being written.
        """
        feature = self.get(name, "features" if name in self.names("features") else "assets")
        if any(busy(directory) for directory in feature.receipts.glob("*/")):
            raise StoreBusy(f"{name!r} is being written; stop its extraction before dropping it.")
        (feature.directory / metadata.FILE).unlink()
        sync_directory(feature.directory)
        shutil.rmtree(feature.receipts, ignore_errors=True)
        shutil.rmtree(feature.directory, ignore_errors=True)
        self.forget(name, feature.section)

    def _feature(self, section: str, spec: FeatureSpec) -> Feature:
        return Feature(self._root, section, spec, self._per_partition, self._rows.digest)

    def forget(self, name: str, section: str = "features") -> None:
        """Drop what is remembered of a feature, its open files included."""
        self._known.pop((section, name), None)
