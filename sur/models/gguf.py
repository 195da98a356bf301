"""GGUF files without the wait: their metadata for `plan`, one parse for all that a load reads, and a way out.

The gguf package takes seconds to parse a 49,000-word vocabulary, and transformers has it do so three times
a model (config, weights, tokenizer). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import numpy as np
from tqdm.auto import tqdm

from sur.models.libraries import quiet_libraries
from sur.models.locate import Located
from sur.support.errors import ConfigError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
_inside: ContextVar[bool] = ContextVar("parsed_once", default=False)


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
    """Within this, every reader of the same GGUF file is one object, parsed once, and twice as fast.

    Does nothing for a model that is not in a GGUF file, or inside another one of these.

    It also makes the progress bar of transformers' own conversion silent where there is no terminal.

    Raises: ConfigError when the gguf package is missing.
    """
    if gguf_file is None or _inside.get():
        yield
        return
    try:
        import gguf
    except ImportError as error:
        raise ConfigError("GGUF models need the package gguf; pip install gguf") from error

    class PlainReader(gguf.GGUFReader):
        """Reads through a plain array: slicing a memmap costs far more than the bytes it gives."""

        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._plain = mapped.view(np.ndarray)

    quiet = partial(tqdm, disable=None)
    bar = mock.patch("transformers.modeling_gguf_pytorch_utils.tqdm", quiet, create=True)
    token = _inside.set(True)
    try:
        with mock.patch.object(gguf, "GGUFReader", lru_cache(maxsize=1)(PlainReader)), bar:
            yield
    finally:
        _inside.reset(token)


def write_safetensors(found: Located, folder: Path) -> None:
    """Write a GGUF model's de-quantised weights (float32), config and tokenizer as transformers does, whole or not.

    Raises: ConfigError when the model is no GGUF file, or the folder is there already.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if found.gguf_file is None:
        raise ConfigError(f"{found.folder} holds no GGUF model; it can be served as it is")
    if folder.exists():
        raise ConfigError(f"{folder} is there already; give a new folder, or remove it")
    made = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    with parsed_once(found.gguf_file), quiet_libraries():
        source = {"gguf_file": found.gguf_file, "local_files_only": True}
        AutoTokenizer.from_pretrained(found.folder, **source).save_pretrained(made)
        quantised = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32, **source)
        config = quantised.config
        vars(config).pop("quantization_config", None)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(quantised.state_dict())
        model.save_pretrained(made)
    made.rename(folder)
