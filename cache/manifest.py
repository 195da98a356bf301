"""What a training read: the rows, in order, and the features with the checksums of their values.

A manifest recorded with a run picks the same rows again from a store that has grown, lost rows or been compacted since.
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
    """Rows that have all features asked for, of all splits in order, and digests of identity and values there.

    `ids`: uint8 (rows, 16). `groups`: int64 (rows,), the partition that each row was in; of these `window` were mixed
    at a time (0: all).
    """

    ids: np.ndarray
    groups: np.ndarray
    window: int
    features: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256, hex, of all that decides what is served and in which order (seed and batch size aside)."""
        groups = hashlib.sha256(self.groups.astype("<i8").tobytes()).hexdigest() if self.window else ""
        ids = hashlib.sha256(self.ids.tobytes()).hexdigest()
        return json_digest({"ids": ids, "groups": groups, "window": self.window, "features": dict(self.features)})

    def slots_in(self, ids: np.ndarray, slots: np.ndarray, where: str) -> np.ndarray:
        """The manifest's rows, in its order, among the `slots` of a store with these `ids`, uint8 (all slots, 16).

        Raises:
            CacheError: a row is not among them; `where` is the store's place, for the message.
        """
        slot_of = {ids[slot].tobytes(): slot for slot in slots.tolist()}
        gone = [row.tobytes().hex() for row in self.ids if row.tobytes() not in slot_of]
        if gone:
            raise CacheError(
                f"{len(gone)} of the manifest's {len(self.ids)} rows are not in {where}, or lack a feature "
                f"(first: row {gone[0]}). Extract the data they came from again, into this store."
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
        """Inverse of `save`.

        Raises:
            FileNotFoundError: there is none.
            CorruptStore: the file is no manifest.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no manifest at {path}; give the manifest.safetensors of a run folder")
        try:
            with safe_open(path, "numpy") as file:
                said = file.metadata() or {}
                features, window = json.loads(said["features"]), int(said["window"])
                return cls(file.get_tensor("ids"), file.get_tensor("groups"), window, features)
        except (SafetensorError, KeyError, ValueError) as error:
            raise CorruptStore(f"{path} is no manifest of a training: {error}.") from error
