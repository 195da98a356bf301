"""Settings of any kind: defaults < a YAML file < `section.key=value`, and errors that say where and what instead."""

from __future__ import annotations

import difflib
import json
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sur.config.example_files import config_file
from sur.support.errors import ConfigError

RESOLVED_NAME = "config.yaml"
Model = TypeVar("Model", bound=BaseModel)


def load_settings(model: type[Model], path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Model:
    """Read a YAML file, apply `section.key=value` overrides (values parsed as YAML) and validate.

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
    """A configuration from the values of a file and overrides; `known` has the keys to suggest, if not the model.

    Raises: ConfigError as load_settings.
    """
    # FOREIGN: a section of another kind of file, one that this kind has to have, and what is said of such a file
    foreign, own, hint = getattr(model, "FOREIGN", ("", "", ""))
    if foreign in values and own not in values:
        raise ConfigError(f"{path}: {hint}")
    origins: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        _assign(values, keys, value, override)
        origins[keys] = override
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, path, origins, known or model)) from None


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
    except IsADirectoryError:
        own = f"; that of its run is {path / RESOLVED_NAME}" if (path / RESOLVED_NAME).is_file() else ""
        raise ConfigError(f"{path} is a folder, and a config file is wanted{own}") from None
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
    for fault in error.errors():
        location = tuple(str(part) for part in fault["loc"])
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
