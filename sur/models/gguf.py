"""GGUF files without the wait: their metadata for `plan`, one parse for a whole load, and their conversion.

The gguf package takes seconds to parse a vocabulary of 49,000 words, and transformers has it do so three times
a model (config, weights, tokenizer). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sur.models.libraries import one_gguf_reader, quiet_libraries
from sur.models.locate import Located
from sur.support.errors import ConfigError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


def read_gguf_header(file: Path) -> dict[str, Any]:
    """Metadata of a GGUF file (version 2 or 3, little-endian); of an array only its length, as an int.

    Raises: ValueError when the file is no GGUF file of a known version.
    """
    with open(file, "rb") as opened:
        magic, version, _tensors, pairs = struct.unpack("<4sIQQ", opened.read(24).ljust(24, b"\0"))
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{file} is not a GGUF file of version 2 or 3 (starts {magic!r}, version {version})")
        return {_string(opened): _value(opened, _number(opened, "I")) for _ in range(pairs)}


def _number(opened: BinaryIO, code: str) -> Any:
    return struct.unpack("<" + code, opened.read(struct.calcsize("<" + code)))[0]


def _string(opened: BinaryIO) -> str:
    return opened.read(_number(opened, "Q")).decode("utf-8", "replace")


def _value(opened: BinaryIO, kind: int) -> Any:
    if kind in SCALARS:
        return _number(opened, SCALARS[kind])
    if kind == STRING:
        return _string(opened)
    if kind != ARRAY:
        raise ValueError(f"{opened.name} has a GGUF value of unknown type {kind}; is it damaged?")
    inner, length = _number(opened, "I"), _number(opened, "Q")
    if inner in SCALARS:
        opened.seek(length * struct.calcsize("<" + SCALARS[inner]), 1)
        return length
    for _ in range(length):
        _value(opened, inner)
    return length


@contextmanager
def parsed_once(gguf_file: str | None) -> Iterator[None]:
    """Within the block, whatever transformers reads of a GGUF file is parsed once; see `one_gguf_reader`.

    Does nothing for a model that is not in a GGUF file (None). Raises: ConfigError when the gguf package is missing.
    """
    if gguf_file is None:
        yield
        return
    try:
        import gguf  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ConfigError("GGUF models need the package gguf; pip install gguf") from error
    with one_gguf_reader():
        yield


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
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    with parsed_once(located.gguf_file), quiet_libraries():
        source = {"gguf_file": located.gguf_file, "local_files_only": True}
        AutoTokenizer.from_pretrained(located.folder, **source).save_pretrained(partial)
        quantised = AutoModelForCausalLM.from_pretrained(located.folder, dtype=torch.float32, **source)
        config = quantised.config
        vars(config).pop("quantization_config", None)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(quantised.state_dict())
        model.save_pretrained(partial)
    partial.rename(folder)
