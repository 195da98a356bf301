"""Losses of the adapter: alignment, distillation, denoising, in any combination."""

from sur.losses.alignment import AlignmentConfig, ReadOut, attention_alignment, token_alignment
from sur.losses.denoising import DenoisingConfig, denoiser_alignment, denoising_loss, prepare_denoiser
from sur.losses.distillation import DistillationConfig, Projection, Teacher
from sur.losses.objective import LossConfig, Objective, RowBatch

__all__ = [
    "AlignmentConfig",
    "DenoisingConfig",
    "DistillationConfig",
    "LossConfig",
    "Objective",
    "Projection",
    "ReadOut",
    "RowBatch",
    "Teacher",
    "attention_alignment",
    "denoiser_alignment",
    "denoising_loss",
    "prepare_denoiser",
    "token_alignment",
]
