"""Settings of an evaluation: what is asked, how it is drawn, and who judges the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ShapesSet = Literal["templates", "synonyms", "dev_templates", "dev_synonyms"]  # `sur.shapes.questions.SetName`


class ClipConfig(BaseModel):
    """A CLIP model that says how well a picture fits its narrative."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="folder or hub id of a CLIP model, such as openai/clip-vit-large-patch14")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")


class VQAConfig(BaseModel):
    """A model that answers questions about a picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="folder or hub id of a BLIP or ViLT model, such as Salesforce/blip-vqa-base")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    max_answer_tokens: int = Field(default=10, ge=1, description="longest answer of a model that writes (BLIP)")


class EvaluateConfig(BaseModel):
    """What is generated and scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: tuple[ShapesSet | Literal["everyday"], ...] = Field(
        default=(), description="prompt sets: those of the shapes world, or everyday; no set, no file: no evaluation"
    )
    files: tuple[Path, ...] = Field(default=(), description="prompt sets from files, .jsonl or .yaml")
    prompts: int = Field(default=256, ge=2, description="prompts of each set, at most; of categories equally many")
    seeds_per_prompt: int = Field(default=1, ge=1, description="pictures of each prompt and condition")
    seed: int = Field(default=0, ge=0, description="of questions, noise and bootstrap")
    steps: int = Field(default=25, ge=1, description="sampling steps")
    guidance: float = Field(default=3.0, ge=1, description="classifier-free guidance")
    size: int | None = Field(default=None, ge=8, description="pixels of a picture's side; none: the pipeline's own")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(default="float32", description="of the pipeline")
    weight: float | None = Field(default=None, description="the adapter's dial, 0 = off; none: the adapter's own")
    batch_size: int = Field(default=64, ge=1, description="pictures made, or judged, at once")
    pictures: Path | None = Field(
        default=None, description="folder of pictures that evaluations may share; default: pictures in the run folder"
    )
    clip: ClipConfig | None = Field(default=None, description="judge of the fit to the narrative; none: no such score")
    vqa: VQAConfig | None = Field(default=None, description="judge of the prompts' questions; none: no such score")
    iqa: tuple[str, ...] = Field(
        default=(),
        description="picture quality by pyiqa's metrics without reference, such as brisque, musiq, clipiqa",
    )
    resamples: int = Field(default=2000, ge=100, description="bootstrap resamples of the prompts")
    examples: int = Field(default=12, ge=0, description="prompts of each set whose pictures the report shows")

    @property
    def asked(self) -> bool:
        """Whether there is anything to evaluate."""
        return bool(self.sets or self.files)


class PromoteConfig(BaseModel):
    """When new rows are worth a training, and when its adapter takes the place of the one in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_new_rows: int = Field(
        default=100, ge=1, description="rows that no candidate has seen, from which one is trained"
    )
    scorer: str | None = Field(default=None, description="judge that decides; none: the first of the evaluation")
    set: str | None = Field(default=None, description="prompt set that decides; none: all that the judge has scored")
    min_gain: float = Field(
        default=0.0, ge=0, description="mean gain a prompt over the adapter in use that has to be exceeded"
    )
    min_prompts: int = Field(
        default=20, ge=1, description="prompts that have to be scored for an adapter to be promoted"
    )
    certain: bool = Field(
        default=True, description="whether the gain's whole 95 % interval has to exceed it, or the mean alone"
    )
