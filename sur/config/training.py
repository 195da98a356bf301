"""Settings of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainConfig(BaseModel):
    """Optimiser, schedule, precision and checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=1000, ge=1, description="number of optimiser steps")
    batch_size: int = Field(default=64, ge=1, description="rows that one process takes at once")
    accumulate: int = Field(default=1, ge=1, description="batches of one process in a step; memory is needed for one")
    optimiser: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: weight matrices by Muon, everything else by AdamW"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate of AdamW")
    matrix_learning_rate: float = Field(default=0.02, gt=0, description="peak learning rate of Muon")
    beta2: float = Field(default=0.999, gt=0, lt=1, description="second beta of AdamW")
    weight_decay: float = Field(default=0.01, ge=0, description="weight decay of AdamW and Muon")
    warmup_steps: int = Field(default=50, ge=0, description="steps of the linear warm-up")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="learning rate after the warm-up")
    max_grad_norm: float = Field(default=1.0, gt=0, description="norm to which gradients are clipped")
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="accelerate's mixed precision")
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the adapter, which is then published; 0 = off",
    )
    compile: bool = Field(default=False, description="compile adapter and read-out by torch.compile: a slower start")
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto: the device that accelerate finds")
    seed: int = Field(default=0, description="seed of the initial weights, order of rows, noise and drawn queries")
    validation_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="share of rows held back for validation, selected by row id"
    )
    validate_every: int = Field(default=200, ge=0, description="steps between validations; 0 = never")
    validation_batches: int = Field(default=4, ge=1, description="batches of one validation")
    patience: int = Field(
        default=0, ge=0, description="validations without improvement after which training ends and publishes the best"
        " weights; 0 = train to the end and publish the last weights"
    )  # fmt: skip
    manifest: Path | None = Field(
        default=None, description="train on just the rows of this manifest.safetensors (another run folder's)"
    )
    save_every: int = Field(default=200, ge=0, description="steps between checkpoints; 0 = only at the end")
    keep_checkpoints: int = Field(
        default=2, ge=1, description="number of newest checkpoints to keep; with patience the best one is kept too"
    )
    log_every: int = Field(default=20, ge=1, description="steps between lines of the log and the curves")
    trackers: tuple[str, ...] | None = Field(
        default=None, description="accelerate's trackers by name; default: tensorboard where it is installed"
    )
    sample_every: int = Field(default=0, ge=0, description="steps between grids of pictures; 0 = never")
    sample_prompts: tuple[str, ...] = Field(default=(), description="prompts of the grids, one line each")
    sample_seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="seeds of the grids, one column each")

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
