"""The two files of a saved adapter: config.json with its settings and checksums, adapter.safetensors with its weights.

Such files come from strangers, too: nothing is allocated before the settings fit the weights' names and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sur.adapter.hub import CONFIG_FILE, WEIGHTS_FILE
from sur.support.checksums import check_file, check_seal, damaged, file_digest, read_object, sealed
from sur.support.errors import ConfigError, NotFound
from sur.support.files import replacing, write_text
from sur.support.tensor_files import save_tensors

FORMAT_VERSION = 1
WEIGHTS_DIGEST = "weights_sha256"
REMEDY = "fetch or train the adapter again"
FAULTS_NAMED = 4  # in a message


class _Text(BaseModel):
    model_config = ConfigDict(strict=True)

    pipeline: str | None = None
    t5_tokens: int | None = None


class _TrainedOn(BaseModel):
    model_config = ConfigDict(strict=True)

    text: _Text = _Text()
    features: dict[str, dict[str, Any]] = {}
    loss: dict[str, Any] = {}


class _Saved(BaseModel):
    """The form of config.json; what a newer version has besides is left alone."""

    model_config = ConfigDict(strict=True)

    format_version: int = 0
    adapter: dict[str, Any]
    weight: FiniteFloat
    trained_on: _TrainedOn
    variant: str = ""
    weights_sha256: str | None = None


def write_adapter(folder: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write an adapter's two files into a folder, each all or nothing, the settings last; returns the folder."""
    with replacing(folder / WEIGHTS_FILE) as partial:
        save_tensors(tensors, partial)
        digest = file_digest(partial)
    write_text(folder / CONFIG_FILE, sealed({"format_version": FORMAT_VERSION, **content, WEIGHTS_DIGEST: digest}))
    return folder


def saved_settings(folder: Path) -> dict[str, Any]:
    """An adapter's config.json: `adapter`, `weight`, `trained_on`, and `variant` where it is not the corrected one.

    Raises ConfigError when it is from a newer version, DamagedFile when it is not as an adapter's settings should be.
    """
    path = folder / CONFIG_FILE
    content = read_object(path, REMEDY)
    version = content.get("format_version", 0)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ConfigError(
            f"{folder} has adapter format {version}, this version reads up to {FORMAT_VERSION}; upgrade the package"
        )
    check_seal(path, content, REMEDY)
    try:
        _Saved.model_validate(content)
    except ValidationError as error:
        raise damaged(path, fault_of(error), REMEDY) from None
    return content


def built(kind: Callable[[Any], nn.Module], settings: type[BaseModel], values: Mapping[str, Any], folder: Path) -> Any:
    """The module of an adapter's settings (`values`), on the device meta, where it takes no memory.

    Raises DamagedFile for settings of which no module can be made.
    """
    try:
        with torch.device("meta"):
            return kind(settings(**values))
    except ValidationError as error:
        problem = f"adapter.{fault_of(error)}"
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        problem = str(error)
    raise damaged(folder / CONFIG_FILE, problem, REMEDY)


def read_weights(folder: Path, digest: str | None, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of adapter.safetensors, float32, with the names and shapes of `expected`.

    digest: SHA-256 of the file; None for a file of an older version.

    Raises NotFound without the file; DamagedFile when its checksum, names, shapes or values are not right.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise NotFound(f"{folder} has no {WEIGHTS_FILE}; {REMEDY}")
    if digest is not None:
        check_file(path, digest, REMEDY)
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if faults := shape_faults(shapes, expected):
                raise damaged(path, f"its tensors are not those that {CONFIG_FILE} describes: {faults}", REMEDY)
            # Copies, since the file may be replaced or cut while they are in use.
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in shapes}
    except SafetensorError as error:
        raise damaged(path, f"it is no safetensors file ({error})", REMEDY) from None
    if wrong := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
        raise damaged(path, f"{len(wrong)} of {len(tensors)} tensors hold NaN or infinity (first: {wrong[0]})", REMEDY)
    return tensors


def shape_faults(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> str:
    """How a file's tensors differ in name and shape from those expected, in words; "" where they do not."""
    faults = [f"{name} is missing" for name in expected if name not in shapes]
    faults += [f"{name} is unknown" for name in shapes if name not in expected]
    faults += [
        f"{name} has shape {shapes[name]}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in shapes and shapes[name] != tuple(value.shape)
    ]
    more = f" and {len(faults) - FAULTS_NAMED} more" if len(faults) > FAULTS_NAMED else ""
    return "; ".join(faults[:FAULTS_NAMED]) + more


def fault_of(error: ValidationError) -> str:
    """The first fault that pydantic found: its place, and what is wrong there."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the object'}: {first['msg']}"
