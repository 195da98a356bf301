"""Settings of the losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

Measure = Literal["kl", "mse", "cosine", "contrastive"]


class AlignmentConfig(BaseModel):
    """How adapted states are compared with the complex prompt's states."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["attention", "tokens", "denoiser", "none"] = Field(
        default="attention",
        description="What is compared: what the denoiser's attention reads out, token states, or the denoiser's "
        "predictions; none turns the loss off.",
    )
    weight: float = Field(default=1.0, ge=0, description="Factor of this loss.")
    measure: Measure = Field(default="mse", description="Distance between states, for form `tokens`.")
    temperature: float = Field(default=1.0, gt=0, description="Temperature of the measures kl and contrastive.")
    queries_per_step: int = Field(
        default=64, ge=1, description="Queries drawn of each layer in a step, for form `attention`."
    )


class DistillationConfig(BaseModel):
    """How the LLM's states are used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["none", "pooled", "tokens", "teacher"] = Field(
        default="none",
        description="How the adapter learns from the LLM: by pooled vectors, token states, a teacher, or not.",
    )
    weight: float = Field(default=1.0, ge=0, description="Factor of this loss.")
    layer: int | None = Field(default=None, ge=0, description="One of llm.layers; default: the last of them.")
    also: dict[str, PositiveFloat] = Field(
        default={},
        description="Further targets of forms `pooled` and `tokens`, by the names of their features (other layers, "
        "other LLMs, as `sur inspect` lists them), with their factors beside the first target's 1.",
    )
    measure: Measure = Field(
        default="contrastive", description="Distance between states, for forms `pooled` and `tokens`."
    )
    temperature: float = Field(default=0.1, gt=0, description="Temperature of the measures kl and contrastive.")
    projection: Literal["learned", "frozen"] = Field(
        default="learned", description="Whether the map between the two widths is trained."
    )
    teacher_width: int = Field(default=192, ge=8, description="Width of the teacher.")
    teacher_layers: int = Field(
        default=2, ge=1, description="Encoder layers of the teacher, and as many decoder layers."
    )
    teacher_tokens: int = Field(
        default=24, ge=1, description="Number of states that the teacher predicts for a prompt."
    )
    teacher_dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout of the teacher in training.")
    teacher_learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate of the teacher.")
    teacher_steps: int = Field(
        default=600, ge=0, description="Steps in which the teacher learns; after them it teaches."
    )

    @model_validator(mode="after")
    def _further_targets_have_a_form(self) -> DistillationConfig:
        if self.also and self.form not in ("pooled", "tokens"):
            raise ValueError(
                f"`also` is for forms pooled and tokens, not {self.form}; leave it out, or change the form"
            )
        return self


class DenoisingConfig(BaseModel):
    """The usual loss of the frozen denoiser given the adapted states, and how the denoiser is run for any loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(
        default=0.0, ge=0, description="Factor of this loss; 0 turns it off, and the denoiser is not loaded for it."
    )
    first_step: int = Field(
        default=0, ge=0, description="Step at which this loss sets in; the steps before it cost less."
    )
    min_snr_gamma: float = Field(
        default=0.0,
        ge=0,
        description="Gamma of min-SNR weights: timesteps of little noise count less (5 is usual); 0: no weights.",
    )
    noise_offset: float = Field(
        default=0.0, ge=0, description="Size of a random constant added to each channel's noise (0.05 is usual)."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Dtype of the denoiser's frozen weights."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute the denoiser's activations twice instead of keeping them, to save memory."
    )
    channels_last: bool = Field(
        default=False, description="Use the memory layout of a UNet's tensors that suits tensor cores."
    )
    compile: bool = Field(
        default=False, description="Compile the denoiser with torch.compile; pays off after some hundred steps."
    )

    @model_validator(mode="before")
    @classmethod
    def _no_caption_dropout(cls, given: Any) -> Any:
        """Older files have the setting `caption_dropout`, nearly always 0."""
        if not isinstance(given, Mapping) or "caption_dropout" not in given:
            return given
        if given["caption_dropout"] != 0:
            raise ValueError(
                "caption_dropout is gone: a pipeline gives the empty prompt as the negative one, which the adapter "
                "leaves alone, so these rows taught nothing that a picture shows; leave it out"
            )
        return {key: value for key, value in given.items() if key != "caption_dropout"}


class LossConfig(BaseModel):
    """Which losses, and how much of each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alignment: AlignmentConfig = Field(default_factory=AlignmentConfig, description="Loss against the complex prompt.")
    distillation: DistillationConfig = Field(
        default_factory=DistillationConfig, description="Loss against the LLM's states."
    )
    denoising: DenoisingConfig = Field(
        default_factory=DenoisingConfig, description="Loss of the frozen denoiser, and how the denoiser is run."
    )

    @model_validator(mode="after")
    def _some_loss_is_on(self) -> LossConfig:
        alignment = self.alignment.form != "none" and self.alignment.weight > 0
        distillation = self.distillation.form != "none" and self.distillation.weight > 0
        if not alignment and not distillation and self.denoising.weight == 0:
            raise ValueError("every loss is off or has weight 0; turn on alignment, distillation or denoising")
        if not alignment and not distillation and self.denoising.first_step > 0:
            raise ValueError("no loss is on before denoising.first_step; set it to 0, or turn another loss on")
        return self

    @property
    def uses_denoiser(self) -> bool:
        """Whether training has to load and run the denoiser."""
        return self.denoising.weight > 0 or self.alignment.form == "denoiser"

    @property
    def uses_llm(self) -> bool:
        """Whether training reads LLM features."""
        return self.distillation.form != "none"

    @property
    def uses_readout(self) -> bool:
        """Whether training reads the denoiser's cached read-out."""
        return self.alignment.form == "attention" or self.distillation.form == "teacher"
