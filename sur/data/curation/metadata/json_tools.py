"""Tools that write their settings as one flat JSON object: InvokeAI, SwarmUI, Fooocus, Draw Things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sur.data.curation.metadata.generator_metadata import GeneratorMetadata, MetadataError


def read_json_tools(texts: Mapping[str, str]) -> GeneratorMetadata | None:
    """The prompts in `invokeai_metadata`, `sd-metadata`, or JSON in `parameters` or `UserComment`, if there are any.

    Raises: MetadataError when InvokeAI's own chunk cannot be read.
    """
    if "invokeai_metadata" in texts:
        fields = json_fields(texts["invokeai_metadata"])
        if fields is None:
            raise MetadataError("the chunk invokeai_metadata is not a JSON object")
        if "positive_prompt" not in fields:
            return None  # a picture that InvokeAI only edited or upscaled
        return _metadata("invokeai", "invokeai", fields, "positive_prompt", "negative_prompt")
    if "sd-metadata" in texts:
        image = (json_fields(texts["sd-metadata"]) or {}).get("image")
        if not isinstance(image, dict):
            raise MetadataError("the chunk sd-metadata has no object `image`")
        prompt = image.get("prompt")
        if isinstance(prompt, list):  # InvokeAI 2: a list of weighted parts
            image = {**image, "prompt": ", ".join(str(part["prompt"]) for part in prompt if isinstance(part, dict))}
        return _metadata("invokeai", "invokeai", image, "prompt", "negative_prompt")
    for name in ("parameters", "UserComment"):
        fields = json_fields(texts.get(name, ""))
        if fields is None:
            continue
        if isinstance(swarm := fields.get("sui_image_params"), dict):
            return _metadata("swarmui", "a1111", swarm, "prompt", "negativeprompt")
        if "prompt" in fields and "negative_prompt" in fields:
            return _metadata("fooocus", "a1111", fields, "prompt", "negative_prompt")
        if {"c", "uc", "sampler", "steps"} <= set(fields):
            return _metadata("drawthings", "a1111", fields, "c", "uc")
    return None


def _metadata(tool: str, dialect: Any, fields: dict[str, Any], prompt: str, negative: str) -> GeneratorMetadata:
    rest = {name: value for name, value in fields.items() if name not in (prompt, negative)}
    return GeneratorMetadata(tool, dialect, str(fields.get(prompt) or ""), str(fields.get(negative) or ""), rest)


def json_fields(text: str) -> dict[str, Any] | None:
    """The fields of a text that is a JSON object; None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
