"""What a training read: the rows, in order, and the features with the checksums of their values.

A manifest recorded with a run picks the same rows again from a store that has grown, lost rows or been compacted since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cache.errors import CorruptStore
from cache.records import json_digest


@dataclass(frozen=True)
class Manifest:
    """Rows that have all features asked for, of all splits in slot order, and digests of identity and values there.

    `ids`: uint8 (rows, 16).
    """

    ids: np.ndarray
    features: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256, hex, of rows and features."""
        return json_digest({"ids": self.ids.tobytes().hex(), "features": dict(self.features)})

    def save(self, path: Path) -> Path:
        """Write the manifest as a safetensors file, all or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_file({"ids": np.ascontiguousarray(self.ids)}, partial, {"features": json.dumps(dict(self.features))})
        partial.replace(path)
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
                return cls(file.get_tensor("ids"), json.loads((file.metadata() or {})["features"]))
        except (SafetensorError, KeyError, ValueError) as error:
            raise CorruptStore(f"{path} is no manifest of a training: {error}.") from error
