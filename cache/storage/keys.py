"""The keys that a store writes. Any other file in its folder belongs to somebody else and is never touched."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"[a-z0-9][a-z0-9._-]*"
_SHAPES = {
    "metadata": rf"(?:(?:datasets|features|assets|receipts|rows)/)?zarr\.json"
    rf"|receipts/(?:rows|features|assets)/zarr\.json"
    rf"|rows/(?:id|simple|complex|image)/zarr\.json"
    rf"|receipts/(?P<m1>features|assets)/(?P<n1>{_NAME})/zarr\.json"
    rf"|(?P<m2>features|assets)/(?P<n2>{_NAME})/{_NAME}/zarr\.json",
    "declaration": rf"(?:datasets|(?P<m3>features|assets))/(?P<n3>{_NAME})/zarr\.json",
    "receipt": rf"receipts/(?:(?P<rows>rows)|(?P<m4>features|assets)/(?P<n4>{_NAME}))/(?P<p4>[0-9]{{5,}})/zarr\.json",
    "values": rf"(?:(?P<rows2>rows)/(?:id|simple|complex|image)|(?P<m5>features)/(?P<n5>{_NAME})/{_NAME})"
    rf"/c\.(?P<p5>[0-9]+)(?:\.0)*|(?P<m6>assets)/(?P<n6>{_NAME})/{_NAME}/c(?:\.0)*",
}
_KEYS = {kind: re.compile(shape) for kind, shape in _SHAPES.items()}


class Key(NamedTuple):
    """The kind of a file of a store, and its owner. `section` is "" for files of the store itself and of the rows."""

    kind: str  # metadata, declaration, receipt or values
    section: str
    feature: str  # "rows" for files of the rows, "" for files of the store itself
    partition: int  # -1: none


def parse_key(key: str) -> Key | None:
    """Kind and owner of the file with this key; None if the store writes no such file."""
    for kind, shape in _KEYS.items():
        if match := shape.fullmatch(key):
            groups = {name.rstrip("0123456789"): value for name, value in match.groupdict().items() if value}
            rows = "rows" in groups or (kind == "metadata" and key.startswith("rows/"))
            if groups.get("m") == "assets":
                partition = 0 if kind in ("receipt", "values") else -1
            else:
                partition = int(groups.get("p", -1))
            feature = "rows" if rows else groups.get("n", "") if "m" in groups else ""
            return Key(kind, groups.get("m", ""), feature, partition)
    return None
