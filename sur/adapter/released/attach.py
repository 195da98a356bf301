"""Inference as in the authors' pipeline (SUR_adapter_pipeline.py of their repository), bug for bug."""

from __future__ import annotations

import functools
from typing import Any

import torch

from sur.adapter.attach import adapt, attach
from sur.adapter.released.adapter import ReleasedAdapter


def attach_as_released(adapter: ReleasedAdapter, pipe: Any) -> Any:
    """Attach so that negative and positive states go through the adapter as one batch, dropout alive.

    The negative prompt then changes the positive one's states and the other way round, and no two pictures of one
    seed are alike unless torch's generator is seeded too. `sur.adapter.attach.detach` takes it off. Raises as `attach`.
    """
    attach(adapter, pipe, weight=0.0)  # for its checks
    original = pipe._encode_prompt_without_adapter
    adapter.train()

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> tuple:
        positive, negative, *rest = original(*args, **kwargs)
        if negative is None:
            return (adapt(adapter, positive), None, *rest)
        negative, positive = adapt(adapter, torch.cat([negative, positive])).chunk(2)
        return (positive, negative, *rest)

    pipe.encode_prompt = encode_prompt
    return pipe
