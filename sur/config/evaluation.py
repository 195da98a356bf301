"""Settings of an evaluation: its prompts, how pictures are drawn, and the judges of the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ShapesSet = Literal["templates", "synonyms", "dev_templates", "dev_synonyms"]  # `sur.shapes.questions.SetName`


class ClipConfig(BaseModel):
    """A CLIP model that scores how well a picture fits its narrative."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="folder or hub id of a CLIP model, such as openai/clip-vit-large-patch14")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")


class VQAConfig(BaseModel):
    """A model that answers questions about a picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="folder or hub id of a BLIP or ViLT model, such as Salesforce/blip-vqa-base")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    max_answer_tokens: int = Field(
        default=10, ge=1, description="longest answer of a model that writes its answers (BLIP)"
    )


class EvaluateConfig(BaseModel):
    """The prompts, pictures, judges and statistics of an evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: tuple[ShapesSet | Literal["everyday"], ...] = Field(
        default=(), description="built-in prompt sets; without any set or file there is no evaluation"
    )
    files: tuple[Path, ...] = Field(default=(), description="files of prompts, .jsonl or .yaml")
    prompts: int = Field(default=256, ge=2, description="most prompts of each set; equally many of each category")
    seeds_per_prompt: int = Field(default=1, ge=1, description="number of pictures of each prompt and condition")
    seed: int = Field(default=0, ge=0, description="seed of the prompts, noise and bootstrap")
    steps: int = Field(default=25, ge=1, description="sampling steps of a picture")
    guidance: float = Field(default=3.0, ge=1, description="scale of classifier-free guidance")
    size: int | None = Field(
        default=None, ge=8, description="pixels of a picture's side; none: the size of the pipeline"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="dtype of the pipeline")
    weight: float | None = Field(default=None, description="strength of the adapter, 0 = off; none: the adapter's own")
    batch_size: int = Field(default=64, ge=1, description="pictures drawn, or judged, at once")
    pictures: Path | None = Field(
        default=None, description="folder of pictures, which evaluations may share; default: pictures in the run folder"
    )
    clip: ClipConfig | None = Field(
        default=None, description="CLIP model that judges the fit to the narrative; none: no such score"
    )
    vqa: VQAConfig | None = Field(
        default=None, description="model that answers the prompts' questions; none: no such score"
    )
    iqa: tuple[str, ...] = Field(
        default=(),
        description="pyiqa's metrics of picture quality without reference, such as brisque, musiq, clipiqa",
    )
    resamples: int = Field(default=2000, ge=100, description="bootstrap resamples of the prompts")
    examples: int = Field(default=12, ge=0, description="number of prompts of each set whose pictures the report shows")

    @property
    def asked(self) -> bool:
        """Whether there is anything to evaluate."""
        return bool(self.sets or self.files)


class PromoteConfig(BaseModel):
    """When new rows are worth a training, and when its adapter replaces the one in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_new_rows: int = Field(
        default=100, ge=1, description="number of new rows (of no earlier candidate) that starts a training"
    )
    scorer: str | None = Field(
        default=None, description="name of the judge that decides; none: the first of the evaluation"
    )
    set: str | None = Field(
        default=None, description="prompt set that decides; none: all sets that the judge has scored"
    )
    min_gain: float = Field(
        default=0.0, ge=0, description="mean gain of a prompt over the adapter in use that must be exceeded"
    )
    min_prompts: int = Field(
        default=20, ge=1, description="number of scored prompts without which no adapter is promoted"
    )
    certain: bool = Field(
        default=True, description="true: the gain's whole 95 % interval must exceed min_gain; false: the mean alone"
    )
