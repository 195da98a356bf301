"""Losses of the adapter: alignment, distillation, denoising, in any combination."""

from sur.adapter.losses.alignment import attention_alignment, token_alignment
from sur.adapter.losses.batch import RowBatch
from sur.adapter.losses.denoising import denoiser_alignment, denoising_loss, prepare_denoiser
from sur.adapter.losses.distillation import HiddenProjection, Teacher
from sur.adapter.losses.objective import Objective
from sur.config.losses import AlignmentConfig, DenoisingConfig, DistillationConfig, LossConfig
from sur.models.readout import ReadOut

__all__ = [
    "AlignmentConfig",
    "DenoisingConfig",
    "DistillationConfig",
    "LossConfig",
    "Objective",
    "HiddenProjection",
    "ReadOut",
    "RowBatch",
    "Teacher",
    "attention_alignment",
    "denoiser_alignment",
    "denoising_loss",
    "prepare_denoiser",
    "token_alignment",
]
