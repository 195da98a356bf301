"""One run's whole configuration: defaults < YAML file < `section.key=value` overrides.

Relative paths mean relative to the current directory, wherever the YAML file lies.
"""

import difflib
import json
import logging
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from cache import store_location
from sur.adapter import AdapterConfig
from sur.encoders import LLMConfig, TextConfig, VAEConfig
from sur.errors import ConfigError
from sur.evaluation.config import EvaluateConfig
from sur.losses import LossConfig
from sur.promotion import PromoteConfig
from sur.readout import ReadoutConfig
from sur.released.config import ReleasedAdapterConfig, refuse_other_losses, with_released_losses
from sur.rows import DataConfig
from sur.trainer import TrainConfig

logger = logging.getLogger(__name__)

RESOLVED_NAME = "config.yaml"
Model = TypeVar("Model", bound=BaseModel)


class StoreConfig(BaseModel):
    """Where the feature cache lies and how it is cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | str = Field(
        description="folder of the Zarr store, or a URL (s3://bucket/prefix); default: store.zarr in the run folder"
    )
    rows_per_partition: int = Field(default=512, ge=1, description="rows in a partition, fixed when a store is made")

    @field_validator("path", mode="before")
    @classmethod
    def _folder_or_url(cls, value: Any) -> Any:
        return store_location(value) if isinstance(value, str) else value


class FlowConfig(BaseModel):
    """How extraction is cut into tasks, where they run, and what happens when one fails."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partitions_per_task: int = Field(default=4, ge=1, description="partitions that one task encodes")
    retries: int = Field(default=3, ge=0, description="times a failed task is tried again")
    retry_seconds: float = Field(default=2.0, gt=0, description="seconds before the first retry; doubled each time")
    task_timeout_seconds: float | None = Field(
        default=None, gt=0, description="seconds after which a task counts as failed and is tried again; none: never"
    )
    runner: Literal["inline", "processes", "dask", "ray"] = Field(
        default="inline", description="where tasks run: in the flow's process, in processes of its host, on a cluster"
    )
    workers: int = Field(default=1, ge=1, description="worker processes, or those of the cluster; inline has none")
    address: str | None = Field(
        default=None, description="address of a Dask scheduler or Ray cluster that runs; none: a local one for this run"
    )
    devices: tuple[str, ...] = Field(
        default=(), description="torch devices of a host, one for each worker there, such as [cuda:0, cuda:1]"
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
    """Everything that a run depends on; each section is documented beside its owner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    FOREIGN: ClassVar = {"source": "this is the file of a build, for `sur build` or `sur deploy --flow build`"}

    run_dir: Path = Field(description="folder for this run's reports, checkpoints and Prefect's own files")
    base_model: str = Field(description="diffusers pipeline folder or hub id; text.model and vae.model default to it")
    base_model_revision: str | None = Field(
        default=None, description="its hub revision (branch, tag or commit), also of text and vae where they say none"
    )
    data: DataConfig = Field(description="the rows")
    store: StoreConfig = Field(description="the feature cache")
    llm: LLMConfig | None = Field(default=None, description="LLM whose hidden states are cached; none: no distillation")
    text: TextConfig = Field(description="text encoder of the pipeline, for simple and complex prompts")
    vae: VAEConfig | None = Field(default=None, description="VAE whose latents are cached; none: rows need no image")
    readout: ReadoutConfig = Field(
        default_factory=ReadoutConfig, description="sample of the denoiser's queries, for attention alignment"
    )
    variant: Literal["corrected", "released"] = Field(
        default="corrected", description="released: the authors' adapter and losses bug for bug, see docs/released.md"
    )
    adapter: AdapterConfig | ReleasedAdapterConfig = Field(
        default_factory=dict, validate_default=True, description="shape of the variant's adapter"
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="what training minimises")
    train: TrainConfig = Field(default_factory=TrainConfig, description="optimiser, schedule, checkpoints")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="what is generated and scored")
    promote: PromoteConfig = Field(
        default_factory=PromoteConfig, description="when the nightly flow trains, and what takes the adapter's place"
    )
    flow: FlowConfig = Field(default_factory=FlowConfig, description="tasks, workers and retries of the extraction")

    @property
    def base(self) -> tuple[str, str | None]:
        """The base model and its revision."""
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
        """Take text.model and vae.model from base_model, store.path from run_dir, unless given."""
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
    """What a section says, be it still plain or a model already."""
    return section if isinstance(section, Mapping) else getattr(section, "model_fields_set", ())


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply `section.key=value` overrides (values parsed as YAML) and validate.

    Raises:
        ConfigError: unreadable file, malformed override, unknown key (with the nearest one), bad value.
    """
    return load_settings(RunConfig, path, overrides)


def load_settings(model: type[Model], path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Model:
    """`load_config` for any configuration that is a pydantic model."""
    return _validated(model, _read_yaml(Path(path)), Path(path), overrides)


def evaluation_settings(overrides: Sequence[str] = ()) -> EvaluateConfig:
    """The settings of an evaluation without a run: defaults, then `evaluate.key=value` overrides.

    Raises: ConfigError as load_config does.
    """
    return _validated(_EvaluationAlone, {}, Path("the command line"), overrides).evaluate


class _EvaluationAlone(BaseModel):
    """A configuration of which only one section is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="what is generated and scored")


def _validated(model: type[Model], values: dict[str, Any], path: Path, overrides: Sequence[str]) -> Model:
    """A configuration from a file's values and overrides."""
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        _assign(values, keys, value, override)
        origins[keys] = override
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = RunConfig if model is _EvaluationAlone else model
        raise ConfigError(_explain(error, path, origins, known)) from None


class RunSettings(Protocol):
    """A configuration of a run of any kind."""

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The configuration as plain values."""
        ...


def save_config(config: RunSettings) -> Path:
    """Write the resolved configuration to `<run_dir>/config.yaml`, atomically, and return its path."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    target = config.run_dir / RESOLVED_NAME
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    partial = target.with_name(f"{RESOLVED_NAME}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    return target


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which YAML would settle silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # pyright: ignore[reportArgumentType]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                line = node.value[index][0].start_mark.line + 1
                raise ConfigError(f"key '{key}' is given twice, the second time in line {line}; remove one")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping at the top of a YAML file."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"no such config file: {path}{hint}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path} is not usable YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, but holds {type(values).__name__}")
    return values


def _parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    """Split `a.b=value` into keys and the value read as YAML."""
    name, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    if not equals or not all(keys):
        raise ConfigError(f"override '{override}' must look like section.key=value")
    try:
        return keys, yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"the value of override '{override}' is not YAML: {error}") from None


def _assign(values: dict[str, Any], keys: tuple[str, ...], value: Any, override: str) -> None:
    """Set a nested key, making sections that are absent or null on the way."""
    for depth, key in enumerate(keys[:-1], start=1):
        if values.get(key) is None:
            values[key] = {}
        values = values[key]
        if not isinstance(values, dict):
            raise ConfigError(f"override '{override}': {'.'.join(keys[:depth])} is a plain value, not a section")
    values[keys[-1]] = value


def _explain(error: ValidationError, path: Path, origins: Mapping[tuple[str, ...], str], model: type[BaseModel]) -> str:
    """One line for each fault: where it stands, what is wrong, what would be right."""
    lines = []
    overridden = {keys[0] for keys in origins}
    foreign = {key: hint for key, hint in getattr(model, "FOREIGN", {}).items() if key not in overridden}
    for fault in error.errors():
        location = tuple(str(part) for part in fault["loc"])
        if location and location[0] in foreign:
            return f"{path}: {foreign[location[0]]}"
        name = ".".join(location) or "configuration"
        source = _origin(location, path, origins)
        if fault["type"] == "extra_forbidden":
            lines.append(f"{source}: unknown key '{name}'{_suggestion(location, model)}")
        elif fault["type"] == "missing":
            lines.append(f"{source}: '{name}' is required")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] in ("tuple_type", "list_type"):
                message = _list_wanted(name, fault["input"])
            got = "" if isinstance(fault["input"], Mapping) else f" (got {fault['input']!r})"
            where = f"{source}: '{name}'" if location else f"{source}{_changed(origins)}"
            lines.append(f"{where}: {message}{got}")
    return "\n".join(lines)


def _list_wanted(name: str, value: Any) -> str:
    """What to write where a single value stands for a list."""
    single = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"must be a list: '{name}=[{single}]' (with the quotes, or some shells read the brackets)"


def _changed(origins: Mapping[tuple[str, ...], str]) -> str:
    """The overrides beside the file, for a fault between settings that no single one of them is to blame for."""
    return f" with {' '.join(origins.values())}" if origins else ""


def _origin(location: tuple[str, ...], path: Path, origins: Mapping[tuple[str, ...], str]) -> str:
    """The override that set a location (the longest that touches it), else the file."""
    touching = [keys for keys in origins if location[: len(keys)] == keys or keys[: len(location)] == location]
    return f"override '{origins[max(touching, key=len)]}'" if touching and location else str(path)


def _suggestion(location: tuple[str, ...], model: type[BaseModel]) -> str:
    """Name the nearest known key: among the siblings first, then anywhere in the tree."""
    names = dict(_field_names(model))
    siblings = {keys[-1]: keys for keys in names if keys[:-1] == location[:-1]}
    near = difflib.get_close_matches(location[-1], siblings, 1, cutoff=0.6)
    if near:
        return f"; did you mean '{'.'.join(siblings[near[0]])}'?"
    anywhere = {keys[-1]: keys for keys in reversed(names)}
    near = difflib.get_close_matches(location[-1], anywhere, 1, cutoff=0.75)
    if near:
        return f"; did you mean '{'.'.join(anywhere[near[0]])}'?"
    return f"; known here: {', '.join(sorted(siblings))}" if siblings else ""


def _field_names(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], type]]:
    """Every field of a model and of the models inside it, as tuples of keys."""
    for name, field in model.model_fields.items():
        yield (*prefix, name), model
        for inner in _models_in(field.annotation):
            yield from _field_names(inner, (*prefix, name))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models in `Model` or `Model | None`."""
    options = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else [annotation]
    )
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
