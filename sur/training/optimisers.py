"""Optimisers of a training and their schedule: AdamW, or Muon for weight matrices and AdamW for the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sur.adapter.base import BaseAdapter
from sur.adapter.losses import Objective

if TYPE_CHECKING:
    from sur.config.training import TrainConfig


def build_optimisers(adapter: BaseAdapter, objective: Objective, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and with `muon` Muon for weight matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Every group has its `peak` learning rate and its `horizon`, the step at which a cosine ends. The teacher's horizon
    is before the adapter's; both end at a learning rate of zero.
    """
    adamw, muon = [], []
    for name, module in {"adapter": adapter, **objective.parts()}.items():
        peak, horizon = config.learning_rate, config.steps
        if name == "teacher":
            settings = objective.config.distillation
            peak, horizon = settings.teacher_learning_rate, settings.teacher_steps
        learnt = [(key, p) for key, p in module.named_parameters() if p.requires_grad]
        matrices = [p for key, p in learnt if config.optimiser == "muon" and is_matrix(key, p)]
        rest = [p for key, p in learnt if all(p is not m for m in matrices)]
        adamw.append({"params": rest, "peak": peak, "horizon": horizon})
        if matrices:
            muon.append({"params": matrices, "peak": config.matrix_learning_rate, "horizon": horizon})
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, config.learning_rate, (0.9, config.beta2), weight_decay=config.weight_decay)
    ]
    if muon:
        optimisers.append(torch.optim.Muon(muon, config.matrix_learning_rate, config.weight_decay))
    return optimisers


def is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether a parameter is a layer's weight matrix, not a norm, a bias or a learnt vector."""
    return parameter.ndim == 2 and name.endswith("weight")


def schedule_factor(config: TrainConfig, step: int, horizon: int) -> float:
    """Learning rate at `step` (0-based) over the peak: linear warm-up, then cosine to zero at `horizon` or constant."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, horizon - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
