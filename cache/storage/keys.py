"""Which keys a store writes itself: anything else in its folder is somebody else's, and never touched."""

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
    "receipt": rf"receipts/(?:(?P<rows>rows)|(?P<m4>features|assets)/(?P<n4>{_NAME}))/(?P<p4>\d+)/zarr\.json",
    "values": rf"(?:(?P<rows2>rows)/(?:id|simple|complex|image)|(?P<m5>features)/(?P<n5>{_NAME})/{_NAME})"
    rf"/c\.(?P<p5>\d+)(?:\.0)*|(?P<m6>assets)/(?P<n6>{_NAME})/{_NAME}/c(?:\.0)*",
}
_KEYS = {kind: re.compile(shape) for kind, shape in _SHAPES.items()}


class Key(NamedTuple):
    """What a file of a store is: its kind, and whose it is. `section` "" for the store's and the rows' own."""

    kind: str  # metadata, declaration, receipt or values
    section: str
    feature: str  # "rows" for those of the rows, "" for the store's own
    partition: int  # -1: of none


def parse_key(key: str) -> Key | None:
    """The file that a key names, None if the store writes no such file."""
    for kind, shape in _KEYS.items():
        if found := shape.fullmatch(key):
            groups = {name.rstrip("0123456789"): value for name, value in found.groupdict().items() if value}
            rows = "rows" in groups or (kind == "metadata" and key.startswith("rows/"))
            if groups.get("m") == "assets":
                partition = 0 if kind in ("receipt", "values") else -1
            else:
                partition = int(groups.get("p", -1))
            feature = "rows" if rows else groups.get("n", "") if "m" in groups else ""
            return Key(kind, groups.get("m", ""), feature, partition)
    return None
