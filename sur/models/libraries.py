"""The libraries that run models: devices, memory, versions, and their noise."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Errors only from transformers and diffusers, and no progress bars where there is no terminal.

    What they would warn of is checked and counted by the encoders: missing weights raise, truncated prompts
    are in the stats.
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


def pick_device(device: str) -> torch.device:
    """The torch device of a config's `device`; "auto" is CUDA when there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_memory() -> None:
    """Hand dropped weights' memory back, the accelerator's too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def major_version(package: str) -> str:
    """First part of an installed package's version: what a new one of may change numbers."""
    return importlib.metadata.version(package).split(".")[0]
