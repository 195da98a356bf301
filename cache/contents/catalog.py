"""The features and assets of a store by name: look up, create, check and drop them."""

from __future__ import annotations

import logging
from collections.abc import Collection

from sur.cache.contents.features import SECTIONS, Feature, read_declaration
from sur.cache.contents.rows import Rows
from sur.cache.errors import CorruptStore, StoreBusy, UnknownFeature
from sur.cache.format import metadata
from sur.cache.format.codecs import require_codec
from sur.cache.format.receipts import receipt_numbers
from sur.cache.format.spec import FeatureSpec
from sur.cache.storage.base import Storage, join
from sur.cache.storage.keys import parse_key

logger = logging.getLogger(__name__)


class Catalog:
    """Features and assets of one store. The caller of `ensure`, `resize` and `drop` holds the store's lock."""

    def __init__(self, storage: Storage, rows: Rows, rows_per_partition: int) -> None:
        self._storage = storage
        self._rows = rows
        self._per_partition = rows_per_partition
        self._known: dict[tuple[str, str], Feature] = {}

    def names(self, section: str) -> list[str]:
        """Names in a section, "features" or "assets"."""
        keys = {name: join(section, name, metadata.FILE) for name in self._storage.folders(section)}
        return [name for name, key in keys.items() if parse_key(key) and self._storage.size(key) is not None]

    def get(self, name: str, section: str = "features", fresh: bool = False) -> Feature:
        """A stored feature, which is remembered; `fresh` reads its declaration again: other processes may replace it.

        Raises:
            UnknownFeature: no such feature; the message names those that exist.
            CorruptStore: its declaration is damaged, or gone while its receipts are there.
        """
        if fresh or (section, name) not in self._known:
            spec = read_declaration(self._storage, section, name)
            if spec is None:
                self.forget(name, section)
                if receipt_numbers(self._storage, f"receipts/{section}/{name}"):
                    raise CorruptStore(
                        f"{self._storage.where(join(section, name, metadata.FILE))} is gone, but receipts of {name} "
                        "are there.",
                        f"Run its extraction again, or give it up by `sur drop STORE {name}`.",
                    )
                stored = ", ".join(self.names(section)) or "none"
                raise UnknownFeature(f"{self._storage.location} holds no {section[:-1]} {name!r}. It holds: {stored}.")
            known = self._known.get((section, name))
            if known is None or known.spec != spec:
                self._known[(section, name)] = self._feature(section, spec)
        return self._known[(section, name)]

    def intact(self, section: str, fresh: bool = False) -> list[Feature]:
        """The features of a section; one with a damaged or lost declaration is left out, and the log names it."""
        names = self.names(section)
        lost = self._with_receipts_alone(section, names)
        if lost and self._storage.busy(""):
            lost = []  # one may just be dropped
        features = []
        for name in (*names, *lost):
            try:
                features.append(self.get(name, section, fresh))
            except CorruptStore as error:
                logger.warning("%s %s is left out until then.", error, name)
            except UnknownFeature:
                continue  # dropped since the names were read
        return features

    def whole(self, section: str) -> list[Feature]:
        """All features of a section. Raises CorruptStore when the declaration of one is damaged or lost."""
        names = self.names(section)
        lost = self._with_receipts_alone(section, names)
        return [self.get(name, section, fresh=True) for name in (*names, *lost)]

    def _with_receipts_alone(self, section: str, names: Collection[str]) -> list[str]:
        """Names in a section, other than `names`, of which there are receipts."""
        receipts = f"receipts/{section}"
        others = (name for name in self._storage.folders(receipts) if name not in names)
        return [name for name in others if receipt_numbers(self._storage, f"{receipts}/{name}")]

    def ensure(self, section: str, spec: FeatureSpec, slots: int) -> None:
        """Create a feature, or check the identity of the stored one and complete an interrupted creation.

        Raises:
            IdentityMismatch: the stored one was made differently.
            BadValues: a codec's package is not installed.
        """
        for array in spec.arrays.values():
            require_codec(array.codec)
        if spec.name in self.names(section):
            feature = self.get(spec.name, section, fresh=True)
            feature.check_identity(spec)
        else:
            feature = self._feature(section, spec)
            self._known[(section, spec.name)] = feature
        feature.publish_metadata(slots)

    def resize(self, slots: int) -> None:
        """Set the number of slots of every feature's arrays."""
        for feature in self.intact("features", fresh=True):
            feature.publish_metadata(slots)

    def drop(self, name: str) -> bool:
        """Remove a feature, or else an asset; returns whether there is one.

        The declaration goes first. If a kill leaves the rest, the same again removes it.

        Raises:
            StoreBusy: it is being written.
        """
        folders = ((section, f) for section in SECTIONS for f in (section, f"receipts/{section}"))
        section = next((section for section, folder in folders if name in self._storage.folders(folder)), None)
        if section is None:
            return False
        directory, receipts = f"{section}/{name}", f"receipts/{section}/{name}"
        for folder in (directory, receipts):
            self._storage.require_own(folder)
        self._require_idle(name, receipts)
        declaration = self._storage.read(join(directory, metadata.FILE))
        self._storage.remove(join(directory, metadata.FILE))
        try:
            self._require_idle(name, receipts)  # a writer that locked a partition before has seen the declaration
        except StoreBusy:
            if declaration is not None:
                self._storage.publish(join(directory, metadata.FILE), declaration)
            raise
        self._storage.remove_tree(receipts)
        self._storage.remove_tree(directory)
        self.forget(name, section)
        return True

    def _require_idle(self, name: str, receipts: str) -> None:
        """Raises StoreBusy when a partition is locked."""
        if any(self._storage.busy(f"{receipts}/{partition}") for partition in self._storage.folders(receipts)):
            raise StoreBusy(f"{name!r} is being written; stop its extraction before dropping it.")

    def discard(self, name: str, partition: int) -> None:
        """Remove the receipt of a feature's partition, or of an asset (partition 0)."""
        section = "features" if name in self.names("features") else "assets"
        directory = self.get(name, section).receipt_directory(partition)
        with self._storage.locked(directory, wait=True):
            self._storage.remove(join(directory, metadata.FILE))
        self.forget(name, section)

    def _feature(self, section: str, spec: FeatureSpec) -> Feature:
        return Feature(self._storage, section, spec, self._per_partition, self._rows.digest)

    def forget(self, name: str, section: str = "features") -> None:
        """Drop everything remembered about a feature, its open files included."""
        self._known.pop((section, name), None)
