"""Zarr v3 metadata documents (zarr.json), written by the specification, so that no version of a library changes them.

https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sur.cache.errors import CorruptStore
from sur.cache.format.codecs import codec_metadata
from sur.cache.format.dtypes import BFLOAT16, stored_dtype, zarr_fill, zarr_name
from sur.cache.format.spec import ArraySpec, json_digest
from sur.cache.storage.base import Storage, join

FILE = "zarr.json"
# Older versions are read as they are. Version 1 had no data sets, and stored chunks behind the last row as zeros.
# Versions 1 and 2 had a SHA-256 in receipts, and digests of declarations that did not depend on the folder.
FORMAT_VERSION = 3
GROUPS = ("datasets", "features", "assets", "receipts", "receipts/rows", "receipts/features", "receipts/assets", "rows")
CONSOLIDATED = ("", "rows", "features", "assets")  # groups that a user may have consolidated
_CHECKED_BYTES = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def group(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def root(rows_per_partition: int, datasets: Sequence[str] = (), version: int = FORMAT_VERSION) -> dict[str, Any]:
    """Metadata of the store itself; `datasets` are the names of its data sets."""
    content: dict[str, Any] = {"format_version": version, "rows_per_partition": rows_per_partition}
    return group({"sur_cache": seal(content | ({"datasets": list(datasets)} if datasets else {}))})


def sharded_array(name: str, spec: ArraySpec, slots: int, rows_per_shard: int, rows_per_chunk: int) -> dict[str, Any]:
    """Metadata of a feature's array (slots, *spec.shape): shards of checked chunks."""
    sharding = {
        "chunk_shape": [rows_per_chunk, *spec.shape],
        "codecs": [*codec_metadata(spec.codec, stored_dtype(spec.dtype)), {"name": "crc32c"}],
        "index_codecs": _CHECKED_BYTES,
        "index_location": "end",
    }
    codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return _array(name, spec.dtype, (slots, *spec.shape), (rows_per_shard, *spec.shape), codecs, rows=True)


def asset_array(name: str, spec: ArraySpec) -> dict[str, Any]:
    """Metadata of an asset's array: one chunk with its CRC32C."""
    return _array(name, spec.dtype, spec.shape, spec.shape, _CHECKED_BYTES, rows=False)


def id_array(slots: int, rows_per_partition: int) -> dict[str, Any]:
    """Metadata of `rows/id` (slots, 16)."""
    return _array("id", "uint8", (slots, 16), (rows_per_partition, 16), _CHECKED_BYTES, rows=True)


def text_array(name: str, slots: int, rows_per_partition: int) -> dict[str, Any]:
    """Metadata of a text column of `rows` (slots,)."""
    codecs = [{"name": "vlen-utf8"}, {"name": "crc32c"}]
    return _array(name, "string", (slots,), (rows_per_partition,), codecs, rows=True)


def _array(
    name: str,
    dtype: str,
    shape: Sequence[int],
    chunk: Sequence[int],
    codecs: list[dict[str, Any]],
    rows: bool,
) -> dict[str, Any]:
    # Chunk files lie flat in the array's folder ("c.7.0"): one folder to sync, and none to create for a shard.
    # xarray needs the dimension names.
    names = [f"{name}_{axis}" for axis in range(len(shape))]
    if rows:
        names[0] = "slot"
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": zarr_name(dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": "" if dtype == "string" else zarr_fill(dtype),
        "codecs": codecs,
        "attributes": {"bits_of": BFLOAT16} if dtype == BFLOAT16 else {},
        "dimension_names": names,
    }


def chunk_file(partition: int, dimensions: int) -> str:
    """Name of the file of `partition` in the folder of an array with this number of dimensions."""
    return ".".join(["c", str(partition), *["0"] * (dimensions - 1)]) if dimensions else "c"


def publish_metadata(storage: Storage, directory: str, document: Mapping[str, Any]) -> None:
    """Write `directory`/zarr.json unless it has this content already."""
    key, data = join(directory, FILE), encoded(document)
    if storage.read(key) != data:
        storage.publish(key, data)


def encoded(document: Mapping[str, Any]) -> bytes:
    """The bytes of a document's file."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def rewritten(storage: Storage, directory: str, document: Mapping[str, Any]) -> bool:
    """Whether `directory`/zarr.json holds `document` in other bytes than this package writes."""
    return storage.read(join(directory, FILE)) != encoded(document)


def read_metadata(storage: Storage, directory: str) -> dict[str, Any] | None:
    """Parsed `directory`/zarr.json, None if absent.

    Raises:
        CorruptStore: not a JSON object of a Zarr v3 node.
    """
    key = join(directory, FILE)
    data = storage.read(key)
    if data is None:
        return None
    try:
        document = json.loads(data, parse_constant=_no_number)
        if b"\\u" in data:
            encoded(document)  # a lone half of a surrogate pair could be neither printed nor written
    except (ValueError, RecursionError) as error:
        raise CorruptStore(f"{storage.where(key)} is not valid JSON: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("attributes"), dict):
        raise CorruptStore(f"{storage.where(key)} is not the metadata of a Zarr v3 node.")
    return document


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def drop_consolidated(storage: Storage) -> None:
    """Remove the copies of all metadata that zarr-python's `consolidate_metadata` made: a change makes them stale."""

    def drop(number: int) -> None:
        with suppress(CorruptStore):
            document = read_metadata(storage, CONSOLIDATED[number])
            if document is not None and "consolidated_metadata" in document:
                publish_metadata(storage, CONSOLIDATED[number], group(document["attributes"]))

    storage.map(drop, range(len(CONSOLIDATED)))


def stale(storage: Storage, directory: str, consolidated: Any) -> bool:
    """Whether copies of metadata in a group name other arrays and groups, or other shapes, than are below it.

    Copies of receipts are left out: no reader of arrays needs them.
    """
    copies = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(copies, dict):
        return True

    def of_arrays(folders: Iterable[str]) -> set[str]:
        return {folder for folder in folders if folder != directory and not folder.startswith("receipts")}

    nodes = of_arrays(key.rpartition("/")[0] for key in storage.files(directory) if key.endswith(f"/{FILE}"))
    copied = {join(directory, str(name)): copy for name, copy in copies.items()}
    if of_arrays(copied) != nodes:
        return True
    return any(
        not isinstance(copied[node], dict)
        or copied[node].get("shape") != (read_metadata(storage, node) or {}).get("shape")
        for node in sorted(nodes)
    )


def seal(content: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """`content` with its SHA-256 under "digest"; it covers the `place` of content that does not name its owner."""
    return {**content, "digest": json_digest({"place": place, **content} if place else content)}


def unseal(sealed: Any, where: str, place: str = "") -> dict[str, Any]:
    """The content of what `seal` made; `where` is the folder, for the message. Versions 1 and 2 left the place out.

    Raises:
        CorruptStore: content and digest disagree.
    """
    content = dict(sealed) if isinstance(sealed, dict) else {}
    digest = content.pop("digest", None)
    if digest not in (seal(content, place)["digest"], seal(content)["digest"]):
        raise CorruptStore(f"{join(where, FILE)}: attributes do not agree with their digest.")
    return content
