"""The record of the data that a training reads: its rows in order, and its features with digests of their values.

With a run's manifest, the same rows are read again from a store that has since grown, lost rows or been compacted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sur.cache.errors import CacheError, CorruptStore
from sur.cache.format.spec import json_digest
from sur.cache.storage.durable import durable_file, make_durable


@dataclass(frozen=True)
class Manifest:
    """Rows that have all requested features, of all splits in order, and digests of the features' values at these rows.

    ids: uint8 (rows, 16).
    groups: Partition that each row was in, int64 (rows,).
    window: Number of partitions that were mixed at a time; 0: all.
    features: Digest of the identity and the values, by feature.
    """

    ids: np.ndarray
    groups: np.ndarray
    window: int
    features: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256, hex, of everything that decides which rows are served in which order, except seed and batch size."""
        groups = hashlib.sha256(self.groups.astype("<i8").tobytes()).hexdigest() if self.window else ""
        ids = hashlib.sha256(self.ids.tobytes()).hexdigest()
        return json_digest({"ids": ids, "groups": groups, "window": self.window, "features": dict(self.features)})

    def slots_in(self, ids: np.ndarray, slots: np.ndarray, where: str) -> np.ndarray:
        """Slots of the manifest's rows, in its order, int64 (rows,).

        ids: Ids of all slots of the store, uint8 (slots of the store, 16).
        slots: The slots to choose from.
        where: The store's path, for the message.

        Raises:
            CacheError: a row is not in these slots.
        """
        slot_of = {ids[slot].tobytes(): slot for slot in slots.tolist()}
        absent = [row.tobytes().hex() for row in self.ids if row.tobytes() not in slot_of]
        if absent:
            raise CacheError(
                f"{len(absent)} of the manifest's {len(self.ids)} rows are not in {where}, or lack a feature "
                f"(first: row {absent[0]}). Extract the data they came from again, into this store."
            )
        return np.array([slot_of[row.tobytes()] for row in self.ids], dtype=np.int64)

    def save(self, path: Path) -> Path:
        """Write the manifest as a safetensors file, all or nothing and durably."""
        arrays = {"ids": np.ascontiguousarray(self.ids), "groups": np.ascontiguousarray(self.groups)}
        with durable_file(path) as partial:
            save_file(arrays, partial, {"features": json.dumps(dict(self.features)), "window": str(self.window)})
            make_durable(partial)
        return path

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """The manifest in a file that `save` wrote.

        Raises:
            FileNotFoundError: no file at `path`.
            CorruptStore: the file is not a manifest.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no manifest at {path}; give the manifest.safetensors of a run folder")
        try:
            with safe_open(path, "numpy") as file:
                attributes = file.metadata() or {}
                features, window = json.loads(attributes["features"]), int(attributes["window"])
                return cls(file.get_tensor("ids"), file.get_tensor("groups"), window, features)
        except (SafetensorError, KeyError, ValueError) as error:
            raise CorruptStore(f"{path} is not the manifest of a training: {error}.") from error
