"""Settings of any kind, from defaults < a YAML file < `section.key=value` overrides.

An error names the file or override at fault, and the nearest key or value that would be right.
"""

from __future__ import annotations

import difflib
import json
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sur.config.example_files import config_file
from sur.config.run_folder import RunFolder
from sur.config.yaml_values import BadYAML, read_values, shortened
from sur.support.errors import ConfigError
from sur.support.files import write_text

LARGEST_BYTES = 1_000_000  # of a config file
MOST_KEYS = 20  # of an override, one inside the other
MOST_FAULTS = 20  # that one message names
Model = TypeVar("Model", bound=BaseModel)


class OtherFile(NamedTuple):
    """How to tell that a file is of another kind: it has a section that this kind lacks, and lacks one of this kind."""

    has: str
    lacks: str
    hint: str  # for the message


class RunSettings(Protocol):
    """The configuration of a run of any kind."""

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The configuration as plain values."""
        ...


def load_settings(model: type[Model], path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Model:
    """The validated settings of a YAML file and of `section.key=value` overrides, whose values are parsed as YAML.

    path: the file, or the name of one that the package ships, such as `shapes`.

    Raises:
        ConfigError: unreadable file, malformed override, unknown key (with the nearest one), bad value.
    """
    file = config_file(path)
    return validated(model, _read_yaml(file), file, overrides)


def validated(
    model: type[Model],
    values: dict[str, Any],
    path: Path,
    overrides: Sequence[str],
    known: type[BaseModel] | None = None,
) -> Model:
    """The validated settings of a file's values and of overrides.

    known: the model whose keys are suggested for an unknown one, if it is not `model`.

    Raises: ConfigError as `load_settings`.
    """
    other: OtherFile | None = getattr(model, "OTHER_FILE", None)
    if other is not None and other.has in values and other.lacks not in values:
        raise ConfigError(f"{path}: {other.hint}")
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        _assign(values, keys, value, override)
        origins[keys] = override
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, origins, known or model)) from None


def save_config(config: RunSettings) -> Path:
    """Write the resolved configuration to `<run_dir>/config.yaml`, all or nothing; returns its path."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return write_text(RunFolder(config.run_dir).config, text)


def _read_yaml(path: Path) -> dict[str, Any]:
    """The mapping at the top of a YAML file."""
    try:
        with open(path, "rb") as opened:
            content = opened.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise ConfigError(f"{path} has more than {LARGEST_BYTES} bytes, which no config file needs; give another")
        values = read_values(content.decode("utf-8-sig"))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"no such config file: {path}{hint}") from None
    except IsADirectoryError:
        resolved = RunFolder(path).config
        own = f"; that of its run is {resolved}" if resolved.is_file() else ""
        raise ConfigError(f"{path} is a folder, and a config file is wanted{own}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except BadYAML as error:
        raise ConfigError(f"{path} is not usable YAML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not usable YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, but holds {type(values).__name__}")
    return values


def _parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    """The keys of an override `a.b=value`, and its value read as YAML."""
    name, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    if not equals or not all(keys) or len(keys) > MOST_KEYS:
        raise ConfigError(f"override '{shortened(override)}' must look like section.key=value")
    try:
        return keys, read_values(text)
    except BadYAML as error:
        raise ConfigError(f"the value of override '{shortened(override)}' is not YAML: {error}") from None


def _assign(values: dict[str, Any], keys: tuple[str, ...], value: Any, override: str) -> None:
    """Set a nested key, and create the sections above it that are absent or null."""
    for depth, key in enumerate(keys[:-1], start=1):
        if values.get(key) is None:
            values[key] = {}
        values = values[key]
        if not isinstance(values, dict):
            raise ConfigError(f"override '{override}': {'.'.join(keys[:depth])} is a plain value, not a section")
    values[keys[-1]] = value


def _explain(error: ValidationError, path: Path, origins: Mapping[tuple[str, ...], str], model: type[BaseModel]) -> str:
    """A message with one line for each fault: its place, what is wrong, and what would be right."""
    lines = []
    faults = error.errors()
    for fault in faults[:MOST_FAULTS]:
        location = tuple(str(part) for part in fault["loc"])
        name = shortened(".".join(location)) or "configuration"
        source = _origin(location, path, origins)
        if fault["type"] == "extra_forbidden":
            lines.append(f"{source}: unknown key '{name}'{_suggestion(location, model)}")
        elif fault["type"] == "missing":
            lines.append(f"{source}: '{name}' is required")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] in ("tuple_type", "list_type"):
                message = _list_wanted(name, fault["input"])
            got = "" if isinstance(fault["input"], Mapping) else f" (got {shortened(repr(fault['input']))})"
            where = f"{source}: '{name}'" if location else f"{source}{_changed(origins)}"
            lines.append(f"{where}: {message}{got}")
    if len(faults) > MOST_FAULTS:
        lines.append(f"{path}: and {len(faults) - MOST_FAULTS} more faults of this kind")
    return "\n".join(lines)


def _list_wanted(name: str, value: Any) -> str:
    """A message that says how to write a list in place of a single value."""
    single = shortened(value if isinstance(value, str) else json.dumps(value, default=str))
    return f"must be a list: '{name}=[{single}]' (with the quotes, or some shells read the brackets)"


def _changed(origins: Mapping[tuple[str, ...], str]) -> str:
    """The overrides beside the file, for a fault between several settings."""
    return f" with {' '.join(map(shortened, origins.values()))}" if origins else ""


def _origin(location: tuple[str, ...], path: Path, origins: Mapping[tuple[str, ...], str]) -> str:
    """The override that set a location (the one of the most keys in common with it), else the file."""
    touching = [keys for keys in origins if location[: len(keys)] == keys or keys[: len(location)] == location]
    return f"override '{shortened(origins[max(touching, key=len)])}'" if touching and location else str(path)


def _suggestion(location: tuple[str, ...], model: type[BaseModel]) -> str:
    """A hint at the nearest known key: among the siblings first, then anywhere in the tree."""
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
    """The keys of every field of a model and of the models inside it, each with the field's model."""
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
