"""The whole configuration of one run.

Relative paths are relative to the current directory, wherever the YAML file lies.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from sur.config.adapter import AdapterConfig, ReleasedAdapterConfig, refuse_other_losses, with_released_losses
from sur.config.data import DataConfig
from sur.config.evaluation import EvaluateConfig, PromoteConfig
from sur.config.features import LLMConfig, ReadoutConfig, TextConfig, VAEConfig
from sur.config.load import OtherFile, load_settings, validated
from sur.config.losses import LossConfig
from sur.config.training import TrainConfig


class StoreConfig(BaseModel):
    """The place of the feature cache, and the size of its partitions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | str = Field(
        description="Folder of the Zarr store, or a URL (s3://bucket/prefix); default: store.zarr in the run folder."
    )
    rows_per_partition: int = Field(
        default=512, ge=1, description="Rows in a partition; fixed when the store is created."
    )

    @field_validator("path", mode="before")
    @classmethod
    def _folder_or_url(cls, value: Any) -> Any:
        """The rule of sur.cache.store_location, which is not imported: settings are read without the cache.

        A URL with a secret is refused before it reaches a log, the run folder or Prefect's database.
        """
        if isinstance(value, str) and "://" in value:
            from sur.cache.storage.base import require_no_secret

            require_no_secret(value)
            return value
        return Path(value) if isinstance(value, str) else value


class FlowConfig(BaseModel):
    """How extraction is divided into tasks, where the tasks run, and what happens when one fails."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partitions_per_task: int = Field(default=4, ge=1, description="Partitions that one task encodes.")
    retries: int = Field(default=3, ge=0, description="Times that a failed task is tried again.")
    retry_seconds: float = Field(
        default=2.0, gt=0, description="Seconds before the first retry; doubled before each further one."
    )
    task_timeout_seconds: float | None = Field(
        default=None, gt=0, description="Seconds after which a task counts as failed and is tried again; none: never."
    )
    runner: Literal["inline", "processes", "dask", "ray"] = Field(
        default="inline",
        description="Where tasks run: in the flow's process, in processes of its machine, or on a Dask or Ray cluster.",
    )
    workers: int = Field(
        default=1, ge=1, description="Worker processes of the machine or cluster; always 1 for the runner inline."
    )
    address: str | None = Field(
        default=None,
        description="Address of a running Dask scheduler or Ray cluster; none: a local cluster is started for the run.",
    )
    devices: tuple[str, ...] = Field(
        default=(), description="Torch devices of the machine, one for each worker, such as [cuda:0, cuda:1]."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "FlowConfig":
        if self.address is not None and self.runner not in ("dask", "ray"):
            raise ValueError(f"address is for the runners dask and ray, but runner is {self.runner}; drop one of them")
        if self.runner == "inline" and (self.workers > 1 or self.devices):
            raise ValueError("workers and devices are for other processes; set runner to processes, dask or ray")
        if self.devices and not self.address and self.workers > len(self.devices):
            raise ValueError(
                f"{self.workers} workers for {len(self.devices)} devices; name a device for each (a CPU several times)"
            )
        return self


class RunConfig(BaseModel):
    """Everything that a run depends on; each section's class is in its own module of sur.config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    OTHER_FILE: ClassVar = OtherFile(
        has="source",
        lacks="data",
        hint="this is the file of a build, for `sur build` or `sur deploy --flow build`",
    )

    run_dir: Path = Field(description="Folder for this run's reports, checkpoints and Prefect's own files.")
    base_model: str = Field(description="Diffusers pipeline: folder or hub id; default of text.model and vae.model.")
    base_model_revision: str | None = Field(
        default=None, description="Hub revision of base_model (branch, tag or commit), and of text and vae by default."
    )
    data: DataConfig = Field(description="The rows of the run.")
    store: StoreConfig = Field(description="The feature cache.")
    llm: LLMConfig | None = Field(
        default=None, description="LLM whose hidden states are cached; none: no distillation."
    )
    text: TextConfig = Field(description="Text encoder of the pipeline, for simple and complex prompts.")
    vae: VAEConfig | None = Field(default=None, description="VAE whose latents are cached; none: rows need no image.")
    readout: ReadoutConfig = Field(
        default_factory=ReadoutConfig, description="Sample of the denoiser's queries, for attention alignment."
    )
    variant: Literal["corrected", "released"] = Field(
        default="corrected",
        description="corrected: the adapter of this package; released: the authors' adapter and losses bug for bug, "
        "see docs/released.md.",
    )
    adapter: AdapterConfig | ReleasedAdapterConfig = Field(
        default_factory=dict, validate_default=True, description="Shape of the variant's adapter."
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="Losses that training minimises.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="Optimiser, schedule and checkpoints.")
    evaluate: EvaluateConfig = Field(
        default_factory=EvaluateConfig, description="Prompts that evaluations draw pictures of, and their judges."
    )
    promote: PromoteConfig = Field(
        default_factory=PromoteConfig,
        description="When the nightly flow trains, and when a new adapter replaces the one in use.",
    )
    flow: FlowConfig = Field(default_factory=FlowConfig, description="Tasks, workers and retries of the extraction.")

    @property
    def base(self) -> tuple[str, str | None]:
        """Folder or hub id of the base model, and its revision."""
        return self.base_model, self.base_model_revision

    @field_validator("adapter", mode="wrap")
    @classmethod
    def _of_the_variant(cls, value: Any, _: Any, info: ValidationInfo) -> AdapterConfig | ReleasedAdapterConfig:
        variant = info.data.get("variant", "corrected")
        own, other = AdapterConfig, ReleasedAdapterConfig
        if variant == "released":
            own, other = other, own
        strange = [key for key in other.model_fields if key not in own.model_fields and key in _keys(value)]
        if strange:
            raise ValueError(
                f"variant {variant} has no setting {', '.join(strange)}; leave it out (adapter={{}} "
                "resets them all), or choose the other variant"
            )
        return own.model_validate(value)

    @model_validator(mode="after")
    def _losses_are_the_variants(self) -> "RunConfig":
        if self.variant == "released":
            refuse_other_losses(self.loss)
        return self

    @model_validator(mode="after")
    def _one_server_for_all_workers(self) -> "RunConfig":
        launches = self.llm is not None and self.llm.vllm is not None and self.llm.vllm.launch is not None
        if launches and self.flow.runner != "inline":
            raise ValueError(
                f"flow.runner={self.flow.runner} would start a vLLM server in every worker; start one by `sur serve` "
                "and give its llm.vllm.endpoint"
            )
        return self

    @model_validator(mode="after")
    def _every_loss_gets_its_turn(self) -> "RunConfig":
        steps, loss = self.train.steps, self.loss
        if loss.distillation.form == "teacher" and loss.distillation.teacher_steps >= steps:
            raise ValueError(
                f"loss.distillation.teacher_steps is {loss.distillation.teacher_steps} of train.steps {steps}: the "
                "teacher would never teach; lower it (a fifth of the steps is a fair share) or train longer"
            )
        if loss.denoising.weight > 0 and loss.denoising.first_step >= steps:
            raise ValueError(
                f"loss.denoising.first_step is {loss.denoising.first_step} of train.steps {steps}: the denoising loss "
                "would never set in; lower it, or set loss.denoising.weight to 0"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_from_siblings(cls, values: Any) -> Any:
        """Take text.model and vae.model from base_model and store.path from run_dir, unless they are given."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        inherited = {"text": ("model", filled.get("base_model"))}
        if filled.get("vae") is not None:
            inherited["vae"] = ("model", filled.get("base_model"))
        if filled.get("variant") == "released":
            filled["loss"] = with_released_losses(filled.get("loss"))
        if filled.get("run_dir") is not None:
            inherited["store"] = ("path", Path(filled["run_dir"]) / "store.zarr")
        for section, (key, value) in inherited.items():
            given = filled.get(section)
            if value is not None and (given is None or isinstance(given, Mapping)):
                filled[section] = {**(given or {}), key: (given or {}).get(key) or value}
                if key == "model" and filled[section][key] == value and filled.get("base_model_revision"):
                    filled[section].setdefault("revision", filled["base_model_revision"])
        return filled


def _keys(section: Any) -> Iterable[str]:
    """The keys that a section sets, whether it is a mapping or a model."""
    return section if isinstance(section, Mapping) else getattr(section, "model_fields_set", ())


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a YAML file with overrides. Raises: ConfigError as sur.config.load.load_settings."""
    return load_settings(RunConfig, path, overrides)


def evaluation_settings(overrides: Sequence[str] = ()) -> EvaluateConfig:
    """The settings of an evaluation without a run: defaults, then `evaluate.key=value` overrides.

    Raises: ConfigError as `load_config`.
    """
    return validated(_EvaluationAlone, {}, Path("the command line"), overrides, known=RunConfig).evaluate


class _EvaluationAlone(BaseModel):
    """A configuration with the section `evaluate` alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluate: EvaluateConfig = Field(
        default_factory=EvaluateConfig, description="Prompts, pictures and judges of the evaluation."
    )
