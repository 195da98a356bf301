"""Messages between our connector inside vLLM and the client, and the file that carries the states.

A request asks, in `kv_transfer_params`, for the states of some token positions; the answer names a file in the
connector's own folder. Needs nothing but what vLLM's environment has.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load, save
from torch import Tensor

VERSION = 1
KEY = "sur"  # our part of a request's and an answer's kv_transfer_params
ABOUT = "sur_about"  # with it, a request asks what is served
Pooling = Literal["mean", "last", "tokens"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SUFFIX = ".safetensors"
FAILED = ".failed"  # beside a request's file that could not be written, with the reason
LARGEST_BYTES = 2**32  # of a request's file
_KINDS = {"int": int, "str": str, "bool": bool}
_NAME = re.compile(r"[0-9a-f]{32}\.safetensors")


@dataclass(frozen=True)
class StatesRequest:
    """The states that a request asks for: those of tokens start..stop, or that of the last token of all."""

    layers: tuple[int, ...]
    pooling: Pooling
    start: int
    stop: int
    dtype: str

    @classmethod
    def read(cls, params: Any) -> StatesRequest:
        """The request that a client sent. Raises ValueError when `params` is not `asdict` of a request."""
        if not isinstance(params, Mapping) or set(params) != {field.name for field in fields(cls)}:
            raise ValueError(f"expected {[field.name for field in fields(cls)]}, got {params!r}")
        request = cls(**{**params, "layers": tuple(params["layers"])})
        numbers = (*request.layers, request.start, request.stop)
        if not all(type(number) is int and number >= 0 for number in numbers) or not request.layers:
            raise ValueError(f"layers, start and stop must be whole numbers from 0, got {params!r}")
        if request.pooling not in get_args(Pooling) or request.dtype not in DTYPES or request.start >= request.stop:
            raise ValueError(
                f"pooling must be one of {get_args(Pooling)}, dtype of {tuple(DTYPES)}, start < stop; got {params!r}"
            )
        return request

    def params(self) -> dict[str, Any]:
        """The request as `kv_transfer_params`."""
        return {KEY: {**asdict(self), "layers": list(self.layers)}}


@dataclass(frozen=True)
class ServerInfo:
    """Description of a server: its model, and how it serves it.

    instance: a new name with every start. exchange: the folder of its files.
    """

    protocol: int
    instance: str
    exchange: str
    engine_version: str
    model: str
    weights: str
    architecture: str
    compute_dtype: str
    max_model_len: int
    layers: tuple[int, ...]
    prefix_caching: bool
    quantization: str
    tensor_parallel_size: int

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> ServerInfo:
        """The description that a server sent. Raises ValueError when it is not `params` of a description."""
        known = {field.name: field.type for field in fields(cls)}
        if not isinstance(params, Mapping) or set(params) != set(known):
            raise ValueError(f"expected a description with {list(known)}, got {params!r:.300}")
        layers = params["layers"]
        if not isinstance(layers, Sequence) or not all(type(layer) is int for layer in layers):
            raise ValueError(f"layers must be whole numbers, got {layers!r:.300}")
        for name, kind in known.items():
            if kind in _KINDS and type(params[name]) is not _KINDS[kind]:
                raise ValueError(f"{name} must be {kind}, got {params[name]!r:.300}")
        return cls(**{**params, "layers": tuple(layers)})

    def params(self) -> dict[str, Any]:
        """The description as JSON values."""
        return {**asdict(self), "layers": list(self.layers)}


class NotWritten(Exception):
    """The server could not write a request's file; the message is its reason."""


def pool_states(states: Tensor, request: StatesRequest) -> Tensor:
    """The requested part of states (tokens, layers, dim): (layers, dim), or (layers, stop - start, dim) for tokens.

    Means are taken in float32 whatever the model's dtype, then cast.
    """
    if request.pooling == "last":
        pooled = states[-1]
    elif request.pooling == "mean":
        pooled = states[request.start : request.stop].float().mean(dim=0)
    else:
        pooled = states[request.start : request.stop].transpose(0, 1)
    return pooled.to(DTYPES[request.dtype])


def file_name(request_id: str) -> str:
    """Name of a request's file: a digest, because clients choose the ids, and these must not reach a path."""
    return hashlib.sha256(request_id.encode()).hexdigest()[:32] + SUFFIX


def publish_states(folder: Path, name: str, states: Tensor, ids: Sequence[int]) -> None:
    """Write a request's file whole or not at all."""
    content = save({"states": states.cpu().contiguous(), "ids": torch.tensor(list(ids), dtype=torch.int64)})
    partial = folder / f"{name}.partial"
    try:
        partial.write_bytes(content)
        os.replace(partial, folder / name)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def publish_failure(folder: Path, name: str, reason: str) -> None:
    """Write why a request's file is not there, in place of that file."""
    (folder / f"{name}{FAILED}").write_text(reason)


def take_states(folder: Path, name: str) -> tuple[Tensor, list[int]]:
    """States and prompt token ids of a request's file, which is removed.

    Raises: ValueError for a name that no request's file has, and for other content, FileNotFoundError when the folder
    lacks the file, NotWritten when the server has left a reason instead.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a file of states")
    path, failed = folder / name, folder / f"{name}{FAILED}"
    if failed.exists():
        reason = _content(failed).decode(errors="replace")[:1000]
        failed.unlink()
        raise NotWritten(reason or "no room for a reason either: the folder's file system is full")
    tensors = load(_content(path))
    path.unlink()
    if set(tensors) != {"states", "ids"} or tensors["ids"].dtype != torch.int64 or tensors["ids"].ndim != 1:
        raise ValueError(f"{name} holds {sorted(tensors)}, expected states and ids")
    return tensors["states"], tensors["ids"].tolist()


def _content(path: Path) -> bytes:
    """Content of a file. Raises ValueError for anything but a file: a pipe would be waited for without end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_BYTES:
            raise ValueError(f"{path.name} is no file, or has more than {LARGEST_BYTES:,} bytes")
        return file.read()


def is_ours(name: str) -> bool:
    """Whether a file in the folder is a request's: its states, a part of them, or the reason why they are not there."""
    return bool(_NAME.fullmatch(name.removesuffix(".partial").removesuffix(FAILED)))
