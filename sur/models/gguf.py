"""GGUF files without the wait: their metadata for `plan`, one parse for a whole load, and their conversion.

The gguf package takes seconds to parse a vocabulary of 49,000 words, and transformers has it do so three times
a model (config, weights, tokenizer). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sur.models.libraries import one_gguf_reader, quiet_libraries
from sur.models.locate import Located
from sur.support.checksums import damaged
from sur.support.errors import ConfigError, UserError
from sur.support.files import replacing_folder
from sur.support.tensor_files import disk_errors

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
REMEDY = "fetch the model again, or give another"


class ArrayLength(int):
    """Length of an array, which stands in the metadata for it: a setting that is given for each layer is no number."""


class GGUFTensors(NamedTuple):
    """The part of a GGUF file that lies before its tensors' values: metadata, and each tensor's dimensions by name."""

    metadata: dict[str, Any]
    dimensions: dict[str, tuple[int, ...]]


def read_gguf_header(file: Path) -> dict[str, Any]:
    """Metadata of a GGUF file (version 2 or 3, little-endian); of an array only its length.

    Raises: DamagedFile when the file is no GGUF file of a known version, or is cut or damaged.
    """
    return _read_start(file, tensors=False).metadata


def gguf_model(file: Path) -> tuple[int, int, str]:
    """Width of the hidden states, number of layers and architecture of a GGUF file's model.

    Raises: DamagedFile when the metadata lack one of them, or are not those of the file's tensors.
    """
    metadata, dimensions = _read_start(file, tensors=True)
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str):
        raise damaged(file, "its metadata lack general.architecture", REMEDY)
    width, layers = (_count(file, metadata, f"{kind}.{name}") for name in ("embedding_length", "block_count"))
    blocks = {int(found[1]) for name in dimensions if (found := re.match(r"blk\.(\d+)\.", name))}
    if blocks != set(range(len(blocks))) or len(blocks) != layers:
        raise damaged(file, f"its metadata say {layers} layers, it has the tensors of {len(blocks)}", REMEDY)
    feeds = metadata.get(f"{kind}.feed_forward_length")
    for name, key, value in (("token_embd.weight", "embedding_length", width),
                             ("blk.0.ffn_up.weight", "feed_forward_length", feeds)):  # fmt: skip
        if type(value) is int and name in dimensions and value not in dimensions[name]:
            raise damaged(file, f"its metadata say {key} {value}, {name} has shape {dimensions[name]}", REMEDY)
    return width, layers, kind


def _count(file: Path, metadata: Mapping[str, Any], name: str) -> int:
    value = metadata.get(name)
    if type(value) is not int or value < 1:
        raise damaged(file, f"its metadata have {name} = {value!r}, no number from 1", REMEDY)
    return value


def _read_start(file: Path, tensors: bool) -> GGUFTensors:
    """Metadata and, where asked, the tensors' dimensions, each place in the file compared with its size."""
    with open(file, "rb") as opened:
        magic, version, count, pairs = struct.unpack("<4sIQQ", opened.read(24).ljust(24, b"\0"))
        if magic != b"GGUF" or version not in (2, 3):
            raise damaged(
                file, f"it is not a GGUF file of version 2 or 3 (starts {magic!r}, version {version})", REMEDY
            )
        start = _Start(opened)
        try:
            start.need(12 * pairs + 24 * count)
            metadata = {start.text(): start.value(start.number("I")) for _ in range(pairs)}
            dimensions = dict(start.tensor() for _ in range(count)) if tensors else {}
        except (ValueError, RecursionError) as error:
            raise damaged(file, str(error), REMEDY) from None
    return GGUFTensors(metadata, dimensions)


class _Start:
    """Reads the beginning of a GGUF file. Raises ValueError for what goes beyond the file's end."""

    def __init__(self, opened: BinaryIO) -> None:
        self.opened, self.size = opened, os.fstat(opened.fileno()).st_size

    def need(self, size: int) -> None:
        """Raise ValueError unless the file has so many bytes more."""
        if self.opened.tell() + size > self.size:
            raise ValueError(f"it is cut, or a length in it is wrong: {size:,} bytes asked at {self.opened.tell():,}")

    def number(self, code: str) -> Any:
        """The next number."""
        self.need(struct.calcsize("<" + code))
        return struct.unpack("<" + code, self.opened.read(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        """The next text, a length and UTF-8."""
        length = self.number("Q")
        self.need(length)
        return self.opened.read(length).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        """The next value of a type; of an array its length."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY or depth > 3:
            raise ValueError(f"it has a value of unknown type {kind}")
        inner, length = self.number("I"), self.number("Q")
        size = struct.calcsize("<" + SCALARS[inner]) if inner in SCALARS else 8
        self.need(length * size)
        if inner in SCALARS:
            self.opened.seek(length * size, 1)
            return ArrayLength(length)
        for _ in range(length):
            self.value(inner, depth + 1)
        return ArrayLength(length)

    def tensor(self) -> tuple[str, tuple[int, ...]]:
        """Name and dimensions of the next tensor."""
        name, rank = self.text(), self.number("I")
        if rank > 8:
            raise ValueError(f"tensor {name[:80]!r} has {rank} dimensions")
        dimensions = tuple(self.number("Q") for _ in range(rank))
        _type, _place = self.number("I"), self.number("Q")
        return name, dimensions


@contextmanager
def parsed_once(gguf_file: str | None) -> Iterator[None]:
    """Within the block, whatever transformers reads of a GGUF file is parsed once; see `one_gguf_reader`.

    Does nothing for a model that is not in a GGUF file (None). Raises: ConfigError when the gguf package is missing, or
    does not read the file.
    """
    if gguf_file is None:
        yield
        return
    try:
        import gguf  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ConfigError("GGUF models need the package gguf; pip install gguf") from error
    with one_gguf_reader():
        try:
            yield
        except UserError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError, struct.error, NotImplementedError) as error:
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ConfigError(f"transformers cannot read {gguf_file} ({said}); {REMEDY}") from error


def write_safetensors(located: Located, folder: Path) -> None:
    """Write a GGUF model's de-quantised weights (float32), config and tokenizer as transformers does, all or nothing.

    Raises: ConfigError when the model is no GGUF file, or the folder is there already.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if located.gguf_file is None:
        raise ConfigError(f"{located.folder} holds no GGUF model; it can be served as it is")
    if folder.exists():
        raise ConfigError(f"{folder} is there already; give a new folder, or remove it")
    gguf_model(located.folder / located.gguf_file)
    with replacing_folder(folder) as partial, disk_errors(folder), parsed_once(located.gguf_file), quiet_libraries():
        source = {"gguf_file": located.gguf_file, "local_files_only": True}
        AutoTokenizer.from_pretrained(located.folder, **source).save_pretrained(partial)
        quantised = AutoModelForCausalLM.from_pretrained(located.folder, dtype=torch.float32, **source)
        config = quantised.config
        vars(config).pop("quantization_config", None)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(quantised.state_dict())
        model.save_pretrained(partial)
