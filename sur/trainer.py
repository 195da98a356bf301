"""The trainer: a generator of frozen `Step` tuples over batches of cached features.

No LLM, text encoder or VAE is ever loaded here; the denoiser only when a loss runs it. All randomness of a step
comes from (seed, step), and the order of rows from (seed, epoch), so a run resumed at a step goes on as if it
had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sur.adapter import Adapter
from sur.losses import Objective, RowBatch


class TrainConfig(BaseModel):
    """Optimiser, schedule, precision and checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=1000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=64, ge=1, description="rows a step")
    optimiser: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: weight matrices by Muon, everything else by AdamW"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate of AdamW")
    matrix_learning_rate: float = Field(default=0.02, gt=0, description="peak learning rate of Muon")
    beta2: float = Field(default=0.999, gt=0, lt=1, description="of AdamW")
    weight_decay: float = Field(default=0.01, ge=0, description="of AdamW and Muon")
    warmup_steps: int = Field(default=50, ge=0, description="linear warm-up")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="after the warm-up")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this norm")
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="accelerate's mixed precision")
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto: what accelerate finds")
    seed: int = Field(default=0, description="of weights, order, noise and drawn queries")
    validation_fraction: float = Field(default=0.05, ge=0, lt=1, description="share of rows held back, by row id")
    validate_every: int = Field(default=200, ge=0, description="steps between validations; 0 = never")
    validation_batches: int = Field(default=4, ge=1, description="batches a validation looks at")
    manifest: Path | None = Field(
        default=None, description="train on just the rows of this manifest.safetensors (another run folder's)"
    )
    save_every: int = Field(default=200, ge=0, description="steps between checkpoints; 0 = only at the end")
    log_every: int = Field(default=20, ge=1, description="steps between lines of the log and the curves")

    @model_validator(mode="after")
    def _one_scaled_optimiser(self) -> TrainConfig:
        if self.optimiser == "muon" and self.mixed_precision == "fp16":
            raise ValueError("optimiser muon and mixed_precision fp16 do not go together (two optimisers would share "
                             "one gradient scaler); use bf16, or adamw")  # fmt: skip
        return self


class Step(NamedTuple):
    """What one optimiser step did. `losses` are weighted, by name; `loss` is their sum."""

    step: int
    losses: dict[str, float]
    loss: float
    grad_norm: float
    learning_rate: float
    loader_seconds: float
    step_seconds: float


class Training:
    """The state of a training: adapter, objective, optimisers. Iterate `run` to train.

    `step` counts finished optimiser steps; `sur.checkpoint` saves and restores everything a resumed run needs.
    """

    def __init__(self, adapter: Adapter, objective: Objective, config: TrainConfig) -> None:
        self.config = config
        # accelerate keeps a process's first settings; another training in it may have others.
        AcceleratorState._reset_state(reset_partial_state=False)
        self.accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
        optimisers = build_optimisers(adapter, objective, config)
        self.parameters = [p for o in optimisers for group in o.param_groups for p in group["params"]]
        self.adapter, self.objective, *self.optimisers = self.accelerator.prepare(adapter, objective, *optimisers)
        self.step = 0

    def run(self, batches: Iterable[RowBatch]) -> Iterator[Step]:
        """Train on `batches` until `config.steps` steps are done; yields after every step.

        Raises FloatingPointError when a loss is not finite; the weights are those of the step before.
        """
        source = iter(batches)
        self.adapter.train()
        self.objective.train()
        while self.step < self.config.steps:
            began = time.perf_counter()
            batch = to_device(next(source), self.accelerator.device)
            loaded = time.perf_counter()
            learning_rate = self._set_learning_rate()
            torch.manual_seed(step_seed(self.config.seed, self.step))
            with self.accelerator.autocast():
                losses = self.objective(batch, self.adapter(batch.simple, mask=batch.mask), self.step)
                total = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(total):
                values = {name: loss.item() for name, loss in losses.items()}
                raise FloatingPointError(
                    f"step {self.step}: the loss is not finite ({values}); lower train.learning_rate, or use "
                    "train.mixed_precision=no"
                )
            for optimiser in self.optimisers:
                optimiser.zero_grad()
            self.accelerator.backward(total)
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
            for optimiser in self.optimisers:
                optimiser.step()
            self.step += 1
            done = time.perf_counter()
            values = {name: loss.item() for name, loss in losses.items()}
            yield Step(
                self.step,
                values,
                total.item(),
                float(norm or 0.0),
                learning_rate,
                loaded - began,
                done - loaded,
            )

    @torch.no_grad()
    def validate(self, batches: Iterable[RowBatch]) -> dict[str, float]:
        """Mean unweighted-by-batch losses over `batches`, with the same draws every time."""
        self.adapter.eval()
        self.objective.eval()
        sums: dict[str, float] = {}
        count = 0
        for index, batch in enumerate(batches):
            torch.manual_seed(step_seed(self.config.seed, -1 - index))
            batch = to_device(batch, self.accelerator.device)
            for name, loss in self.objective(batch, self.adapter(batch.simple, mask=batch.mask), self.step).items():
                sums[name] = sums.get(name, 0.0) + float(loss)
            count += 1
        self.adapter.train()
        self.objective.train()
        return {name: value / max(count, 1) for name, value in sums.items()}

    def _set_learning_rate(self) -> float:
        """Sets every group's learning rate for this step; returns AdamW's for the adapter."""
        for group in (g for optimiser in self.optimisers for g in optimiser.param_groups):
            group["lr"] = group["peak"] * schedule_factor(self.config, self.step, group["horizon"])
        return self.optimisers[0].param_groups[0]["lr"]


def build_optimisers(adapter: Adapter, objective: Objective, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and with `muon` Muon for weight matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Every group has its `peak` learning rate and its `horizon`, the step at which a cosine ends. The teacher ends
    learning before the adapter does, and at a learning rate of zero like the adapter.
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
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, config.learning_rate, (0.9, config.beta2), weight_decay=config.weight_decay)
    ]
    if muon:
        made.append(torch.optim.Muon(muon, config.matrix_learning_rate, config.weight_decay))
    return made


def is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether a parameter multiplies vectors (a layer's weight), unlike norms, biases and learnt vectors."""
    return parameter.ndim == 2 and name.endswith("weight")


def schedule_factor(config: TrainConfig, step: int, horizon: int) -> float:
    """Learning rate at `step` (0-based) over the peak: linear warm-up, then cosine to zero at `horizon` or constant."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, horizon - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def step_seed(seed: int, step: int) -> int:
    """Seed of torch's generator for one step; distinct for every (seed, step)."""
    return (seed * 1_000_003 + step) % 2**63


def to_device(batch: RowBatch, device: torch.device) -> RowBatch:
    """The batch with every tensor on `device`."""
    move = lambda value: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value  # noqa: E731
    values = {}
    for name, value in vars(batch).items():
        values[name] = tuple(move(part) for part in value) if isinstance(value, tuple) else move(value)
    return RowBatch(**values)
