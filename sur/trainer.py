"""The trainer: a generator of frozen `Step` tuples over batches of cached features.

No LLM, text encoder or VAE is ever loaded here; the denoiser only when a loss runs it. All randomness of a step
comes from (seed, step), and the order of rows from (seed, epoch), so a run resumed at a step goes on as if it
had never stopped.

A step takes `batch_size` x `accumulate` x processes rows, part by part, and averages the parts' gradients. That equals
one part of all the rows, within rounding, where a loss is a mean over rows: alignment of forms `tokens` (mse, cosine,
kl) and `denoiser`, distillation of form `pooled` (mse, cosine, kl), and denoising. It does not quite where

- rows that take part differ in number a part (no complex prompt, no picture), or tokens do (distillation `tokens`):
  every part weighs the same, and one with nothing to compare counts as zero;
- a part's rows meet one another: `contrastive`, and the variance in the denominator of form `attention`;
- there is dropout: the adapter's masks differ from part to part, the teacher's are the same in every part.

Noise and timesteps of a row depend on its place in the step alone, and all parts see the same drawn queries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sur.adapter import Adapter
from sur.compiling import compile_parts
from sur.errors import ConfigError
from sur.losses import Objective, RowBatch
from sur.optimisers import build_optimisers, schedule_factor
from sur.processes import average_gradients, average_values, take_from_first


class TrainConfig(BaseModel):
    """Optimiser, schedule, precision and checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=1000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=64, ge=1, description="rows that a process takes at once")
    accumulate: int = Field(default=1, ge=1, description="times a process does so in a step; memory is that of once")
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
    ema_decay: float = Field(
        default=0.0, ge=0, lt=1, description="of the adapter's moving average, which is then what is published; 0 = off"
    )
    compile: bool = Field(default=False, description="compile adapter and read-out by torch.compile: a slower start")
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto: what accelerate finds")
    seed: int = Field(default=0, description="of weights, order, noise and drawn queries")
    validation_fraction: float = Field(default=0.05, ge=0, lt=1, description="share of rows held back, by row id")
    validate_every: int = Field(default=200, ge=0, description="steps between validations; 0 = never")
    validation_batches: int = Field(default=4, ge=1, description="batches a validation looks at")
    patience: int = Field(
        default=0, ge=0, description="validations without improvement after which training ends, with the best weights"
        " published; 0 = trains to the end and publishes the last"
    )  # fmt: skip
    manifest: Path | None = Field(
        default=None, description="train on just the rows of this manifest.safetensors (another run folder's)"
    )
    save_every: int = Field(default=200, ge=0, description="steps between checkpoints; 0 = only at the end")
    keep_checkpoints: int = Field(
        default=2, ge=1, description="newest checkpoints that are kept; with patience the best one besides"
    )
    log_every: int = Field(default=20, ge=1, description="steps between lines of the log and the curves")
    trackers: tuple[str, ...] | None = Field(
        default=None, description="accelerate's trackers by name; default: tensorboard where it is installed"
    )
    sample_every: int = Field(default=0, ge=0, description="steps between pictures of the prompts below; 0 = never")
    sample_prompts: tuple[str, ...] = Field(default=(), description="what is drawn, a line of the grid each")
    sample_seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="noise, a column of the grid each")

    @model_validator(mode="after")
    def _asked_for_what_it_needs(self) -> TrainConfig:
        if self.patience and not (self.validate_every and self.validation_fraction):
            raise ValueError("patience counts validations, and there are none; set validate_every and "
                             "validation_fraction, or patience=0")  # fmt: skip
        if self.sample_every and not self.sample_prompts:
            raise ValueError("sample_every is set, but there is nothing to draw; name some sample_prompts")
        return self

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
    """The state of a training: adapter, its moving average, objective, optimisers. Iterate `run` to train.

    `step` counts finished optimiser steps; `sur.checkpoint` saves and restores everything a resumed run needs.
    """

    def __init__(self, adapter: Adapter, objective: Objective, config: TrainConfig) -> None:
        self.config = config
        # accelerate keeps a process's first settings; another training in it may have others.
        AcceleratorState._reset_state(reset_partial_state=False)
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            cpu=config.device == "cpu",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the launcher's would divide again
        )
        kind = self.accelerator.distributed_type
        if kind != DistributedType.NO and not kind.value.startswith("MULTI_"):
            raise ConfigError(
                f"the launcher asks for {kind.value}, which splits a model over processes; an adapter is small: start "
                "plain processes (accelerate launch --multi_gpu, or torchrun)"
            )
        optimisers = build_optimisers(adapter, objective, config)
        self.parameters = [p for o in optimisers for group in o.param_groups for p in group["params"]]
        self.average = moving_average(adapter, config.ema_decay) if config.ema_decay else None
        self.adapter, self.objective = self._place(adapter), self._place(objective)
        if self.average is not None:
            self.average.module = self._place(self.average.module)
        self.optimisers = [self.accelerator.prepare(optimiser) for optimiser in optimisers]
        take_from_first([*adapter.state_dict().values(), *objective.learned().values()])
        if config.compile:
            compile_parts(self.adapter, self.objective, self.accelerator.device)
        self.step = 0

    @property
    def published(self) -> Adapter:
        """What is validated, drawn with and published: the moving average if there is one, else the adapter."""
        return self.accelerator.unwrap_model(self.adapter if self.average is None else self.average.module)

    def run(self, batches: Iterable[RowBatch]) -> Iterator[Step]:
        """Train on `batches`, this process's rows of each step, until `config.steps` steps are done.

        Yields after every step. Raises FloatingPointError when a loss is not finite; the weights are those of the
        step before.
        """
        source = iter(batches)
        self.adapter.train()
        self.objective.train()
        while self.step < self.config.steps:
            began = time.perf_counter()
            batch = next(source)
            loaded = time.perf_counter()
            learning_rate = self._set_learning_rate()
            losses = average_values(self._accumulate(batch))
            if not all(math.isfinite(value) for value in losses.values()):
                raise FloatingPointError(
                    f"step {self.step}: the loss is not finite ({losses}); lower train.learning_rate, or use "
                    "train.mixed_precision=no"
                )
            average_gradients(self.parameters)
            norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
            for optimiser in self.optimisers:
                optimiser.step()
            if self.average is not None:
                self.average.update_parameters(self.accelerator.unwrap_model(self.adapter))
            self.step += 1
            done = time.perf_counter()
            yield Step(
                self.step,
                losses,
                sum(losses.values()),
                float(norm or 0.0),
                learning_rate,
                loaded - began,
                done - loaded,
            )

    def _accumulate(self, batch: RowBatch) -> dict[str, float]:
        """Put the mean gradient of the batch's parts into the parameters; returns the mean losses of the parts."""
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        sums: dict[str, Tensor] = {}
        parts = self.config.accumulate
        for number, part in enumerate(split_rows(batch, parts)):
            part = to_device(part, self.accelerator.device)
            place = self.accelerator.process_index * parts + number
            torch.manual_seed(part_seed(self.config.seed, self.step, place))
            with self.accelerator.autocast():
                output = self.adapter(part.simple, mask=part.mask)
                torch.manual_seed(step_seed(self.config.seed, self.step))
                losses = self.objective(part, output, self.step)
                total = torch.stack(list(losses.values())).sum() / parts
            self.accelerator.backward(total)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() / parts
        return {name: value.item() for name, value in sums.items()}

    @torch.no_grad()
    def validate(self, batches: Iterable[RowBatch]) -> dict[str, float]:
        """Mean unweighted-by-batch losses over `batches` of what would be published, with the same draws every time."""
        adapter = self.adapter if self.average is None else self.average.module
        adapter.eval()
        self.objective.eval()
        sums: dict[str, float] = {}
        count = 0
        for index, batch in enumerate(batches):
            torch.manual_seed(step_seed(self.config.seed, -1 - index))
            batch = to_device(batch, self.accelerator.device)
            for name, loss in self.objective(batch, adapter(batch.simple, mask=batch.mask), self.step).items():
                sums[name] = sums.get(name, 0.0) + float(loss)
            count += 1
        self.adapter.train()
        self.objective.train()
        return {name: value / max(count, 1) for name, value in sums.items()}

    def _place(self, module: Any) -> Any:
        """The module on its device, in its precision; without accelerate's wrapper for gradients of many processes."""
        return self.accelerator.prepare_model(module, evaluation_mode=True)

    def _set_learning_rate(self) -> float:
        """Sets every group's learning rate for this step; returns AdamW's for the adapter."""
        for group in (g for optimiser in self.optimisers for g in optimiser.param_groups):
            group["lr"] = group["peak"] * schedule_factor(self.config, self.step, group["horizon"])
        return self.optimisers[0].param_groups[0]["lr"]


def moving_average(adapter: Adapter, decay: float) -> AveragedModel:
    """Average of the adapter's weights over steps, w <- d w + (1 - d) now with d = min(decay, (1 + n) / (10 + n)).

    n counts the steps so far: a short training does not end near its start.
    """

    def mean(averaged: Tensor, now: Tensor, n: Tensor | int) -> Tensor:
        return torch.lerp(averaged, now, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return AveragedModel(adapter, avg_fn=mean)


def step_seed(seed: int, step: int) -> int:
    """Seed of torch's generator for one step; distinct for every (seed, step)."""
    return (seed * 1_000_003 + step) % 2**63


def part_seed(seed: int, step: int, place: int) -> int:
    """Seed of one part of a step; the first part's is the step's own."""
    first = step_seed(seed, step)
    return first if place == 0 else int(np.random.SeedSequence([first, place]).generate_state(1)[0])


def split_rows(batch: RowBatch, parts: int) -> Iterator[RowBatch]:
    """The batch's rows in `parts` equal runs, in their order."""
    rows = len(batch.simple) // parts
    for number in range(parts):
        here = slice(number * rows, (number + 1) * rows)
        yield _each_tensor(batch, lambda tensor, here=here: tensor[here])


def to_device(batch: RowBatch, device: torch.device) -> RowBatch:
    """The batch with every tensor on `device`."""
    return _each_tensor(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _each_tensor(batch: RowBatch, change: Callable[[Tensor], Tensor]) -> RowBatch:
    """The batch with every tensor changed."""
    values = {}
    for name, value in vars(batch).items():
        if isinstance(value, tuple):
            value = tuple(change(part) for part in value)
        values[name] = change(value) if isinstance(value, Tensor) else value
    return RowBatch(**values)
