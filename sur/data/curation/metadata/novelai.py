"""NovelAI's metadata: texts Software, Description (the prompt) and Comment (JSON), or one object of all these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sur.data.curation.metadata.generator_metadata import GeneratorMetadata, MetadataError
from sur.data.curation.metadata.json_tools import json_fields

_WEIGHT = re.compile(r"(-?\d+(?:\.\d+)?)::(.+?)(?:::|$)", re.S)  # 1.5::rain, night::


def read_novelai(texts: Mapping[str, str]) -> GeneratorMetadata | None:
    """The prompts that NovelAI left in a picture's texts; weights such as 1.5::rain:: as (rain:1.5).

    Raises: MetadataError when its JSON cannot be read.
    """
    whole = json_fields(texts.get("UserComment", ""))
    if whole is not None and "Comment" in whole:  # in WebP
        texts = {name: value for name, value in whole.items() if isinstance(value, str)}
    if "NovelAI" not in texts.get("Software", "") and "NovelAI" not in texts.get("Source", ""):
        return None
    fields = json_fields(texts.get("Comment", ""))
    if fields is None:
        raise MetadataError("the text Comment of NovelAI is not a JSON object")
    prompt = _joined(fields, "v4_prompt", str(fields.get("prompt") or texts.get("Description", "")))
    negative = _joined(fields, "v4_negative_prompt", str(fields.get("uc") or ""))
    rest = {name: value for name, value in fields.items() if name not in ("prompt", "uc")}
    return GeneratorMetadata("novelai", "a1111", _WEIGHT.sub(_bracket, prompt), _WEIGHT.sub(_bracket, negative), rest)


def _joined(fields: Mapping[str, Any], name: str, base: str) -> str:
    """A prompt with those of its characters, which version 4 has apart."""
    version_4 = fields.get(name)
    caption = version_4.get("caption") if isinstance(version_4, dict) else None
    if not isinstance(caption, dict):
        return base
    listed = caption.get("char_captions")
    characters = [entry.get("char_caption") for entry in listed or [] if isinstance(entry, dict)]
    parts = [caption.get("base_caption") or base, *characters]
    return ", ".join(part for part in parts if isinstance(part, str) and part.strip())


def _bracket(found: re.Match[str]) -> str:
    return f"({found.group(2)}:{found.group(1)})"
