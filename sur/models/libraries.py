"""The libraries that run models: devices, memory, versions, silence while they load, one parse of a GGUF file."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch


def pick_device(device: str) -> torch.device:
    """The torch device of a config's `device`; "auto" is CUDA when there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_memory() -> None:
    """Give the memory of dropped weights back to the system, the accelerator's too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def major_version(package: str) -> str:
    """The first part of an installed package's version.

    It is part of a feature's identity, because a new major version may change the numbers.
    """
    return importlib.metadata.version(package).split(".")[0]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within the block, transformers and diffusers log errors only, and draw no progress bars without a terminal.

    The encoders check and count what the libraries would warn of: missing weights raise, truncated prompts are in
    the stats.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    bars = [
        library
        for library in (transformers_logging, diffusers_logging)
        if library.is_progress_bar_enabled() and not sys.stderr.isatty()
    ]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    for library in bars:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for library in bars:
            library.enable_progress_bar()


@contextmanager
def one_gguf_reader() -> Iterator[None]:
    """Within the block, transformers reads a GGUF file through one reader: parsed once, and twice as fast.

    transformers makes a `gguf.GGUFReader` for a model's config, one for its tokenizer and one for its weights, and
    takes none that exists. So the block puts another object in that class's place, for the whole process; it also
    silences the progress bar of the conversion where there is no terminal. Inside another such block it does nothing.
    Checked against transformers 5.23 and gguf 0.19. Raises ImportError without the package gguf.
    """
    import gguf
    import transformers.modeling_gguf_pytorch_utils as conversion
    from tqdm.auto import tqdm

    if isinstance(gguf.GGUFReader, _OneReader):
        yield
        return
    with ExitStack() as replacements:
        replacements.enter_context(_replaced(gguf, "GGUFReader", _OneReader(gguf.GGUFReader)))
        replacements.enter_context(_replaced(conversion, "tqdm", partial(tqdm, disable=None)))
        yield


class _OneReader:
    """Stands in for gguf's class of readers: the same file gives the same reader again."""

    def __init__(self, reader_class: Any) -> None:
        class PlainReader(reader_class):
            """Reads through a plain array: slicing a memmap costs far more than the bytes it gives."""

            @property
            def data(self) -> Any:
                return self._plain

            @data.setter
            def data(self, mapped: np.ndarray) -> None:
                self._plain = mapped.view(np.ndarray)

        self._reader_class = PlainReader
        self._file: str | None = None
        self._reader: Any = None

    def __call__(self, file: str | os.PathLike[str]) -> Any:
        if self._file != os.fspath(file):
            self._file, self._reader = None, None  # the old reader's memory first
            self._reader = self._reader_class(file)
            self._file = os.fspath(file)
        return self._reader


@contextmanager
def _replaced(module: Any, name: str, stand_in: Any) -> Iterator[None]:
    """Within the block, a name of a module stands for another object."""
    original = getattr(module, name)
    setattr(module, name, stand_in)
    try:
        yield
    finally:
        setattr(module, name, original)
