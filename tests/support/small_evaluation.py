"""An evaluation of a few prompts in a few steps."""

from __future__ import annotations

from pathlib import Path

import torch
from small_settings import CONFIGS, SMALL

from sur.adapter.adapter import Adapter
from sur.config.adapter import AdapterConfig
from sur.config.run import evaluation_settings
from sur.evaluation import Subject

WEIGHTS = str(CONFIGS.parent / "sur" / "shapes" / "weights")


def moved_adapter(folder: Path, seed: int = 0) -> Path:
    """An adapter that is not the identity."""
    torch.manual_seed(seed)
    adapter = Adapter(AdapterConfig(dim=128))
    torch.nn.init.normal_(adapter.output.weight, std=0.1)
    return adapter.save_pretrained(folder)


def subject_in(folder: Path, *overrides: str) -> Subject:
    """The adapter in `folder`, judged on few prompts in few steps."""
    small = [each for each in SMALL if each.startswith("evaluate.")]
    return Subject((WEIGHTS, None), folder / "adapter", evaluation_settings([*small, *overrides]), folder)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every picture by its name."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.png"))}
