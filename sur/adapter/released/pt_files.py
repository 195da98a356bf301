"""The authors' checkpoints: `.pt` files that hold the adapter's state dict and nothing else.

Such a file is a pickle. It is read with torch's reader for tensors alone, which runs no code of the file.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sur.adapter.adapter_files import shape_faults
from sur.adapter.released.adapter import ReleasedAdapter
from sur.config.adapter import ReleasedAdapterConfig
from sur.support.errors import ConfigError, NotFound
from sur.support.files import write_bytes

LAYERS = "transformer_encoder.layers."


def read_pt(path: Path, weight: float) -> ReleasedAdapter:
    """The adapter of a `.pt` file, in float32 and ready for inference.

    weight: the authors' `adapter_weight`, which no file holds. Raises NotFound without a file, ConfigError for a file
    that holds anything but the released adapter's tensors.
    """
    state = _tensors(path)
    for key in ("fc.weight", LAYERS + "0.linear1.weight"):
        if key not in state or state[key].ndim != 2:
            raise ConfigError(f"{path} is not a checkpoint of the released adapter: it has no matrix {key}")
    layers = len({key.split(".")[2] for key in state if key.startswith(LAYERS)})
    config = ReleasedAdapterConfig(dim=len(state["fc.weight"]), layers=layers, weight=weight)
    with torch.device("meta"):
        expected = ReleasedAdapter(config).state_dict()
    if faults := shape_faults({key: tuple(value.shape) for key, value in state.items()}, expected):
        raise ConfigError(f"{path} is not a checkpoint of the released adapter: {faults}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    adapter = ReleasedAdapter(config, trained_on={"converted_from": path.name, "sha256": digest})
    adapter.load_state_dict({key: value.float() for key, value in state.items()})
    return adapter.eval().requires_grad_(False)


def write_pt(adapter: ReleasedAdapter, path: Path) -> Path:
    """Write the adapter as a `.pt` file that the authors' code loads; its `adapter_weight` is not in it."""
    content = io.BytesIO()  # torch itself names no reason when a disk does not take the file
    torch.save({key: value.detach().cpu() for key, value in adapter.state_dict().items()}, content)
    return write_bytes(path, content.getvalue())


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise NotFound(f"no file {path}; give a .pt checkpoint of the released adapter")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is damaged, or holds more than tensors; it was not loaded") from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ConfigError(f"{path} holds no state dict of tensors; give a checkpoint of the released adapter")
    return content
