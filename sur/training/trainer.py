"""The trainer: a generator of frozen `Step` tuples over batches of cached features.

No LLM, text encoder or VAE is ever loaded here; the denoiser only when a loss runs it. All random numbers of a step
come from (seed, step), and the order of rows from (seed, epoch), so a run resumed at a step goes on as if it
had never stopped.

A step takes `batch_size` x `accumulate` x processes rows, part by part, and averages the parts' gradients. The average
equals the gradient of one part of all the rows, within rounding, where a loss is a mean over rows: alignment of forms
`tokens` (mse, cosine, kl) and `denoiser`, distillation of form `pooled` (mse, cosine, kl), and denoising. It differs
where

- the parts differ in the number of rows (some lack a complex prompt or a picture) or of tokens (distillation `tokens`)
  that enter a loss: every part weighs the same, and a part without any counts as zero;
- the rows of a part are compared with each other: `contrastive`, and the variance in the denominator of `attention`;
- there is dropout: the adapter's masks differ from part to part, the teacher's are the same in every part.

Noise and timesteps of a row depend only on its place in the step, and all parts use the same drawn queries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, GradientAccumulationPlugin
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from sur.adapter.base import BaseAdapter
from sur.adapter.losses import Objective
from sur.adapter.losses.batch import RowBatch
from sur.config.training import TrainConfig
from sur.support.errors import ConfigError, LossNotFinite
from sur.training.compiling import compile_parts
from sur.training.distributed import average_gradients, average_values, take_from_first
from sur.training.optimisers import build_optimisers, schedule_factor


class Step(NamedTuple):
    """Record of one optimiser step. `losses` are weighted, by name; `loss` is their sum."""

    step: int
    losses: dict[str, float]
    loss: float
    grad_norm: float
    learning_rate: float
    loader_seconds: float
    step_seconds: float


class Training:
    """The state of a training: adapter, its moving average, objective, optimisers. Iterate `run` to train.

    `step` counts finished optimiser steps; `sur.training.checkpoint` saves and restores everything a resumed run needs.
    """

    def __init__(self, adapter: BaseAdapter, objective: Objective, config: TrainConfig) -> None:
        self.config = config
        self.accelerator = _accelerator(config)
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
    def published(self) -> BaseAdapter:
        """The adapter to validate, sample with and publish: the moving average if there is one, else the adapter."""
        return self.accelerator.unwrap_model(self.adapter if self.average is None else self.average.module)

    def run(self, batches: Iterable[RowBatch]) -> Iterator[Step]:
        """Train on `batches`, this process's rows of each step, until `config.steps` steps are done.

        Yields after every step. Raises LossNotFinite when a loss is not finite; the weights are those of the
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
                raise LossNotFinite(
                    f"step {self.step}: the loss is not finite ({losses}); lower train.learning_rate, or use "
                    "train.mixed_precision=no"
                )
            norm = self._update()
            done = time.perf_counter()
            yield Step(
                self.step, losses, sum(losses.values()), norm, learning_rate,
                loader_seconds=loaded - began, step_seconds=done - loaded,
            )  # fmt: skip

    def _update(self) -> float:
        """Change the weights by the gradients of all processes; returns the gradients' norm before clipping."""
        average_gradients(self.parameters)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        for optimiser in self.optimisers:
            optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.accelerator.unwrap_model(self.adapter))
        self.step += 1
        return float(norm or 0.0)

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
        """Losses of the weights that would be published: means over `batches`, with the same draws every time."""
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
        """The module on its device, in its precision; without accelerate's wrapper that averages gradients."""
        return self.accelerator.prepare_model(module, evaluation_mode=True)

    def _set_learning_rate(self) -> float:
        """Set every group's learning rate for this step; returns the adapter's under AdamW."""
        for group in (g for optimiser in self.optimisers for g in optimiser.param_groups):
            group["lr"] = group["peak"] * schedule_factor(self.config, self.step, group["horizon"])
        return self.optimisers[0].param_groups[0]["lr"]


def _accelerator(config: TrainConfig) -> Accelerator:
    """Accelerate for this process, of the processes that train together. Raises ConfigError for sharded models."""
    # accelerate keeps the settings of a process's first training; a later one may have others.
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=config.device == "cpu",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # the launcher's would divide again
    )
    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not kind.value.startswith("MULTI_"):
        raise ConfigError(
            f"the launcher asks for {kind.value}, which splits a model over processes; an adapter is small: start "
            "plain processes (accelerate launch --multi_gpu, or torchrun)"
        )
    return accelerator


def moving_average(adapter: BaseAdapter, decay: float) -> AveragedModel:
    """Average of the adapter's weights over steps, w <- d w + (1 - d) now with d = min(decay, (1 + n) / (10 + n)).

    n is the number of steps so far: with it the average of a short training leaves the initial weights behind.
    """

    def mean(averaged: Tensor, now: Tensor, n: Tensor | int) -> Tensor:
        return torch.lerp(averaged, now, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return AveragedModel(adapter, avg_fn=mean)


def step_seed(seed: int, step: int) -> int:
    """Seed of torch's generator for one step, different for every (seed, step)."""
    return (seed * 1_000_003 + step) % 2**63


def part_seed(seed: int, step: int, place: int) -> int:
    """Seed of one part of a step; the first part has the seed of the step."""
    first = step_seed(seed, step)
    return first if place == 0 else int(np.random.SeedSequence([first, place]).generate_state(1)[0])


def split_rows(batch: RowBatch, parts: int) -> Iterator[RowBatch]:
    """`parts` batches of equally many rows each, in the order of the rows."""
    rows = len(batch.simple) // parts
    for number in range(parts):
        part = slice(number * rows, (number + 1) * rows)
        yield _map_tensors(batch, lambda tensor, part=part: tensor[part])


def to_device(batch: RowBatch, device: torch.device) -> RowBatch:
    """The batch with every tensor on `device`."""
    return _map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _map_tensors(batch: RowBatch, change: Callable[[Tensor], Tensor]) -> RowBatch:
    """The batch with every tensor replaced by `change` of it."""
    values = {}
    for name, value in vars(batch).items():
        if isinstance(value, tuple):
            value = tuple(change(part) for part in value)
        values[name] = change(value) if isinstance(value, Tensor) else value
    return RowBatch(**values)
