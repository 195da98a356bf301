"""Tensors written to safetensors files, with the errors that other files have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file. Raises OSError when the disk does not take it."""
    from safetensors.torch import save_file

    with disk_errors(path):
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise the OSError that a SafetensorError of writing stands for, so that a full disk is told as such."""
    try:
        yield
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
