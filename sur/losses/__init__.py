"""Losses of the adapter: alignment, distillation, denoising, in any combination."""

from sur.losses.alignment import AlignmentConfig, ReadOut, attention_alignment, token_alignment
from sur.losses.denoising import DenoisingConfig, FrozenDenoiser, denoiser_alignment, denoising_loss
from sur.losses.distillation import DistillationConfig, Projection, Teacher
from sur.losses.objective import LossConfig, Objective, RowBatch

__all__ = [
    "AlignmentConfig",
    "DenoisingConfig",
    "DistillationConfig",
    "FrozenDenoiser",
    "LossConfig",
    "Objective",
    "Projection",
    "ReadOut",
    "RowBatch",
    "Teacher",
    "attention_alignment",
    "denoiser_alignment",
    "denoising_loss",
    "token_alignment",
]
