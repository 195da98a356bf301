"""Which tool's metadata a picture has: AUTOMATIC1111's, ComfyUI's, InvokeAI's, SwarmUI's or Fooocus'."""

from __future__ import annotations

from collections.abc import Mapping

from sur.data.curation.metadata.a1111 import read_a1111
from sur.data.curation.metadata.comfyui import read_comfyui
from sur.data.curation.metadata.generator_metadata import GeneratorMetadata
from sur.data.curation.metadata.json_tools import read_json_tools


def read_generator_metadata(texts: Mapping[str, str]) -> GeneratorMetadata | None:
    """The prompts that one of the known tools left in a picture's texts; None when none of them did.

    Raises: MetadataError when it is such a tool's metadata, but not to be followed.
    """
    found = read_json_tools(texts)
    for name in ("parameters", "UserComment"):
        if found is None and name in texts:
            found = read_a1111(texts[name])
    if found is None and ("prompt" in texts or "workflow" in texts):
        found = read_comfyui(texts.get("prompt"), texts.get("workflow"))
    return found
