"""The processes that train together, started by `accelerate launch` or torchrun; otherwise there is one.

Gradients are averaged here, in one message for each step, and not by DistributedDataParallel: the learning parameters
are spread over two modules, and the set of those that get a gradient changes in the course of a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object, reduce
from torch import Tensor


def joined(cpu: bool) -> tuple[int, int]:
    """Join the other processes; returns the number of this one and the number of processes."""
    state = PartialState(cpu=cpu)
    return state.process_index, state.num_processes


@contextmanager
def together() -> Iterator[None]:
    """Leave the process group at the end of the block: otherwise torch's threads abort the process as it ends."""
    try:
        yield
    finally:
        if PartialState._shared_state and PartialState().num_processes > 1:
            PartialState().destroy_process_group()
            PartialState._reset_state()


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; a process without one counts as zero.

    A parameter that has a gradient in no process keeps none, so that its optimiser leaves it alone.
    """
    if PartialState().num_processes == 1:
        return
    grads = [parameter.grad for parameter in parameters]
    present = torch.tensor([float(grad is not None) for grad in grads], device=parameters[0].device)
    flat = [
        (torch.zeros_like(p) if grad is None else grad).flatten() for p, grad in zip(parameters, grads, strict=True)
    ]
    mean: Tensor = reduce(torch.cat([*flat, present]), "mean")  # pyright: ignore[reportAssignmentType]
    *means, anywhere = mean.split([p.numel() for p in parameters] + [len(parameters)])
    for parameter, part, somewhere in zip(parameters, means, anywhere.tolist(), strict=True):
        parameter.grad = part.view_as(parameter) if somewhere else None


def average_values(values: Mapping[str, float]) -> dict[str, float]:
    """Mean over the processes of named numbers; a name that a process lacks counts as zero there."""
    everyone = gather_object([dict(values)])
    names = dict.fromkeys(name for process in everyone for name in process)
    return {name: sum(process.get(name, 0.0) for process in everyone) / len(everyone) for name in names}


def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite every tensor with the first process's, so that all start from the same weights."""
    if PartialState().num_processes > 1:
        for tensor in tensors:
            tensor.data.copy_(broadcast(tensor.data))  # pyright: ignore[reportArgumentType]


def as_first(value: Any) -> Any:
    """The first process's value, in every process: for a decision that all must take alike."""
    return broadcast_object_list([value])[0]


def in_any(flag: bool) -> bool:
    """Whether the flag is set in any of the processes."""
    return any(gather_object([flag]))


def wait_for_everyone() -> None:
    """Return once every process has reached this call."""
    PartialState().wait_for_everyone()
