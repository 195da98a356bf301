"""A small training on random rows."""

from __future__ import annotations

import torch

from sur.adapter.adapter import Adapter
from sur.adapter.losses import Objective
from sur.adapter.losses.batch import RowBatch
from sur.config.adapter import AdapterConfig
from sur.config.losses import LossConfig
from sur.config.training import TrainConfig
from sur.training.trainer import Training

DIM, LLM_DIM, TOKENS, ROWS = 16, 12, 5, 12
MEANS = {
    "alignment": {"form": "tokens", "measure": "mse"},
    "distillation": {"form": "pooled", "measure": "mse"},
}


def batches(seed: int = 0):
    """Random rows without end."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    while True:
        length = torch.randint(3, TOKENS + 1, (ROWS,), generator=generator)
        yield RowBatch(draw(ROWS, TOKENS, DIM), length, complex=draw(ROWS, TOKENS, DIM), llm=draw(ROWS, LLM_DIM),
                       llm_length=torch.ones(ROWS, dtype=torch.long))  # fmt: skip


def training(**settings) -> Training:
    config = TrainConfig(**{"steps": 8, "warmup_steps": 2, "device": "cpu", **settings})
    torch.manual_seed(0)
    loss = LossConfig.model_validate(MEANS)
    return Training(Adapter(AdapterConfig(dim=DIM)), Objective(loss, DIM, llm_shape=(LLM_DIM,)), config)
