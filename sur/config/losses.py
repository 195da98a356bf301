"""Settings of the losses."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

Measure = Literal["kl", "mse", "cosine", "contrastive"]


class AlignmentConfig(BaseModel):
    """How adapted states are held against the complex prompt's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["attention", "tokens", "denoiser", "none"] = Field(
        default="attention", description="see DESIGN, the method"
    )
    weight: float = Field(default=1.0, ge=0, description="factor of this loss")
    measure: Measure = Field(default="mse", description="distance of form `tokens`")
    temperature: float = Field(default=1.0, gt=0, description="of kl and contrastive")
    queries_per_step: int = Field(default=64, ge=1, description="queries of each layer drawn a step, form `attention`")


class DistillationConfig(BaseModel):
    """How the LLM's states are used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["none", "pooled", "tokens", "teacher"] = Field(default="none", description="see the module")
    weight: float = Field(default=1.0, ge=0, description="factor of this loss")
    layer: int | None = Field(default=None, ge=0, description="of llm.layers; default: the last one listed")
    also: dict[str, PositiveFloat] = Field(
        default={},
        description="further targets of forms `pooled` and `tokens`, by the names of their features (other layers, "
        "other LLMs, as `sur inspect` lists them), with their factors beside the first one's 1",
    )
    measure: Measure = Field(default="contrastive", description="distance of forms `pooled` and `tokens`")
    temperature: float = Field(default=0.1, gt=0, description="of kl and contrastive")
    projection: Literal["learned", "frozen"] = Field(default="learned", description="the map between the two widths")
    teacher_width: int = Field(default=192, ge=8, description="width of the teacher")
    teacher_layers: int = Field(default=2, ge=1, description="encoder layers and decoder layers of the teacher")
    teacher_tokens: int = Field(default=24, ge=1, description="states that the teacher writes")
    teacher_dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout of the teacher")
    teacher_learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate of the teacher")
    teacher_steps: int = Field(default=600, ge=0, description="steps in which the teacher learns; then it teaches")

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
        default=0.0, ge=0, description="factor of this loss; 0 = off, the denoiser is not loaded for it"
    )
    first_step: int = Field(default=0, ge=0, description="step at which it sets in; steps before it cost less")
    min_snr_gamma: float = Field(
        default=0.0, ge=0, description="steps with little noise count less (5 is usual); 0 = all alike"
    )
    noise_offset: float = Field(
        default=0.0, ge=0, description="a constant added to each channel's noise (0.05 is usual)"
    )
    caption_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of rows with the empty prompt in place of theirs, for this loss alone",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the denoiser's frozen weights"
    )
    gradient_checkpointing: bool = Field(default=False, description="compute the denoiser's inside twice, keep less")
    channels_last: bool = Field(default=False, description="memory layout of a UNet that suits tensor cores")
    compile: bool = Field(default=False, description="torch.compile the denoiser; pays after some hundred steps")


class LossConfig(BaseModel):
    """Which losses, and how much of each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alignment: AlignmentConfig = Field(default_factory=AlignmentConfig, description="to the complex prompt")
    distillation: DistillationConfig = Field(default_factory=DistillationConfig, description="from the LLM")
    denoising: DenoisingConfig = Field(default_factory=DenoisingConfig, description="of the frozen denoiser")

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
