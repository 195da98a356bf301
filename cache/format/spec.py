"""Rows by content, and features by identity: what a user of the cache declares."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sur.cache.errors import BadValues
from sur.cache.format.codecs import RAW, check_codec
from sur.cache.format.dtypes import MANTISSA_BITS, stored_dtype

ID_BYTES = 16
_MAX_BYTES = 2**40
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class RowRecord:
    """One row of the data set, as it is stored.

    id: Content hash (16 bytes).
    simple, complex: The two prompts; `complex` is "" for none.
    image: Reference by which the data source finds the image; "" for none.
    slot: Place of the row in the store; -1 before it has one.
    """

    id: bytes
    simple: str
    complex: str = ""
    image: str = ""
    slot: int = -1


def row_id(simple: str, complex: str, image: bytes | None) -> bytes:
    """128-bit content hash (BLAKE2b) of the length-prefixed parts; None and b"" are different images."""
    digest = hashlib.blake2b(digest_size=ID_BYTES)
    for part in (simple.encode(), complex.encode(), image):
        digest.update((2**64 - 1 if part is None else len(part)).to_bytes(8, "little"))
        digest.update(part or b"")
    return digest.digest()


def which_ids(ids: np.ndarray, chosen: Iterable[bytes]) -> np.ndarray:
    """Which of `ids`, uint8 (n, 16), are among the chosen ones, bool (n,)."""
    chosen = set(chosen)
    return np.fromiter((row.tobytes() in chosen for row in ids), dtype=bool, count=len(ids))


@dataclass(frozen=True)
class ArraySpec:
    """Element type and shape of one row of an array, or of a whole asset array.

    dtype: A name of dtypes.py.
    codec: A name of codecs.py; packs the chunks of a feature.
    keep_bits: Bits of the mantissa that are kept of floats (relative error up to 2^-(keep_bits + 1)); 0 keeps all.
    """

    dtype: str
    shape: tuple[int, ...]
    codec: str = RAW
    keep_bits: int = 0

    def __post_init__(self) -> None:
        item = stored_dtype(self.dtype)
        check_codec(self.codec)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        if any(size < 1 for size in self.shape):
            raise BadValues(f"Every size must be at least 1, got shape {self.shape}.")
        if self.nbytes > _MAX_BYTES:
            raise BadValues(f"A row of shape {self.shape} would take {self.nbytes:,} bytes; at most {_MAX_BYTES:,} do.")
        if self.codec == "pcodec" and item.itemsize < 2:
            raise BadValues(f"pcodec packs elements of 2, 4 or 8 bytes, not {self.dtype}; choose another codec.")
        if self.keep_bits and not 0 < self.keep_bits <= MANTISSA_BITS.get(self.dtype, 0):
            raise BadValues(
                f"keep_bits must be positive and is for floats, at most {MANTISSA_BITS}; got {self.keep_bits} for "
                f"{self.dtype}."
            )

    @property
    def packed(self) -> bool:
        """Whether a codec packs the chunks; packed chunks differ in length."""
        return self.codec != RAW

    @property
    def nbytes(self) -> int:
        """Bytes of one row (or of the whole asset array)."""
        return math.prod(self.shape) * stored_dtype(self.dtype).itemsize

    def attributes(self) -> dict[str, Any]:
        """The spec as JSON; codec and rounding are left out where they are the defaults."""
        packing = {"codec": self.codec} if self.codec != RAW else {}
        rounding = {"keep_bits": self.keep_bits} if self.keep_bits else {}
        return {"dtype": self.dtype, "shape": list(self.shape), **packing, **rounding}


@dataclass(frozen=True)
class FeatureSpec:
    """Name, kind, identity and arrays of a feature (or an asset).

    `identity` is plain JSON and contains everything that can change a number: model, fingerprint, layer, ...
    """

    name: str
    kind: str
    identity: Mapping[str, Any]
    arrays: Mapping[str, ArraySpec]

    def __post_init__(self) -> None:
        for name in (self.name, *self.arrays):
            if not _NAME.fullmatch(name):
                raise BadValues(f"Name {name!r} must match {_NAME.pattern} (lower case, no slash or space).")
        if not self.arrays:
            raise BadValues(f"Feature {self.name!r} needs at least one array.")
        object.__setattr__(self, "identity", plain_json(self.identity, f"identity of {self.name}"))
        object.__setattr__(self, "arrays", dict(self.arrays))

    def attributes(self) -> dict[str, Any]:
        """The spec as JSON, as the store keeps it; without the name, which is the folder."""
        arrays = {name: spec.attributes() for name, spec in sorted(self.arrays.items())}
        return {"kind": self.kind, "identity": dict(self.identity), "arrays": arrays}

    @classmethod
    def from_attributes(cls, name: str, attributes: Mapping[str, Any]) -> FeatureSpec:
        """The spec of a name and its `attributes`."""
        arrays = {key: ArraySpec(**value) for key, value in attributes["arrays"].items()}
        if not isinstance(attributes["kind"], str) or not isinstance(attributes["identity"], dict):
            raise TypeError(f"kind {attributes['kind']!r} or identity {attributes['identity']!r}")
        return cls(name, attributes["kind"], attributes["identity"], arrays)

    @property
    def identity_digest(self) -> str:
        """SHA-256 of the attributes, hex."""
        return json_digest(self.attributes())

    def differences(self, other: FeatureSpec) -> list[tuple[str, Any, Any]]:
        """(field, value here, value of the other) for every field, in dotted form, in which two specs differ."""
        ours, theirs = _flat(self.attributes()), _flat(other.attributes())
        return [
            (key, ours.get(key, "(absent)"), theirs.get(key, "(absent)"))
            for key in sorted({*ours, *theirs})
            if key not in ours or key not in theirs or ours[key] != theirs[key]
        ]


def plain_json(value: Any, what: str) -> Any:
    """`value` as it comes back from JSON (tuples become lists); `what` names it in errors.

    Raises:
        BadValues: JSON cannot represent it.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise BadValues(f"{what} must be plain JSON: {error}.") from error


def json_digest(value: Any) -> str:
    """SHA-256, hex, of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
