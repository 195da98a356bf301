"""Reads the metadata of whichever tool made a picture: AUTOMATIC1111, ComfyUI, InvokeAI, NovelAI and others."""

from __future__ import annotations

from collections.abc import Mapping

from sur.data.curation.metadata.a1111 import read_a1111, read_a1111_prompts
from sur.data.curation.metadata.comfyui import read_comfyui
from sur.data.curation.metadata.generator_metadata import GeneratorMetadata
from sur.data.curation.metadata.json_tools import read_json_tools
from sur.data.curation.metadata.novelai import read_novelai


def read_generator_metadata(texts: Mapping[str, str]) -> GeneratorMetadata | None:
    """The prompts that one of the known tools left in a picture's texts; None when none of them did.

    Raises: MetadataError when one of these tools wrote metadata that cannot be followed.
    """
    metadata = read_json_tools(texts)
    if metadata is None:
        metadata = read_novelai(texts)
    for name in ("parameters", "UserComment", "XMP description"):
        if metadata is None and name in texts:
            metadata = read_a1111(texts[name])
    if metadata is None and ("prompt" in texts or "workflow" in texts):
        metadata = read_comfyui(texts.get("prompt"), texts.get("workflow"))
    for name in ("parameters", "UserComment"):
        if metadata is None and name in texts:
            metadata = read_a1111_prompts(texts[name], sure=name == "parameters")
    return metadata
