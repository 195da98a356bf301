"""ComfyUI's two forms of a graph, brought to one: nodes by id, each with its inputs by name.

`prompt` (what ran):      {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}}}
`workflow` (the canvas):  {"nodes": [{"id": 6, "type": ..., "inputs": [{"name", "link"}], "widgets_values": [...]}],
                           "links": [[link, from node, from slot, to node, to slot, type]]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sur.data.curation.metadata.generator_metadata import MetadataError

# The canvas gives widgets by place only; newer versions name them in `inputs` besides. These matter to prompts.
WIDGETS = {
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        "width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l",
    ),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl", "empty_padding"),
    "KSampler": ("seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", "control_after_generate", "steps", "cfg", "sampler_name", "scheduler",
    ),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "PrimitiveNode": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "SaveImage": ("filename_prefix",),
}  # fmt: skip
MUTED, BYPASSED = 2, 4


class Link(NamedTuple):
    """An input that is another node's output."""

    node: str
    slot: int


@dataclass(frozen=True)
class Node:
    """One node; an input is a `Link` or a plain value."""

    id: str
    kind: str
    inputs: Mapping[str, Any]

    def links(self) -> Iterator[tuple[str, Link]]:
        """The inputs that come from other nodes."""
        return ((name, value) for name, value in self.inputs.items() if isinstance(value, Link))


Graph = dict[str, Node]


def graph_that_ran(text: str) -> Graph:
    """The graph of the chunk `prompt`. Raises: MetadataError when it is none."""
    graph = {}
    for name, node in _json(text, "prompt").items():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            raise MetadataError(f"the chunk prompt is not ComfyUI's: its entry {name!r} is no node with inputs")
        inputs = {key: _link(value) for key, value in node["inputs"].items()}
        graph[str(name)] = Node(str(name), str(node.get("class_type", "")), inputs)
    return graph


def graph_of_canvas(text: str) -> Graph:
    """The graph of the chunk `workflow`, without muted nodes. Raises: MetadataError when it is none."""
    canvas = _json(text, "workflow")
    nodes, wires = canvas.get("nodes"), canvas.get("links")
    if not isinstance(nodes, list) or not isinstance(wires, list):
        raise MetadataError("the chunk workflow is not ComfyUI's: it has no lists `nodes` and `links`")
    ends = {wire[0]: Link(str(wire[1]), int(wire[2])) for wire in wires if isinstance(wire, list) and len(wire) >= 5}
    graph = {}
    for node in nodes:
        if not isinstance(node, dict) or node.get("mode") == MUTED:
            continue
        sockets = [socket for socket in node.get("inputs") or [] if isinstance(socket, dict)]
        inputs = {} if node.get("mode") == BYPASSED else dict(_widgets(node, sockets))
        inputs |= {str(socket.get("name")): ends[socket["link"]] for socket in sockets if socket.get("link") in ends}
        graph[str(node.get("id"))] = Node(str(node.get("id")), str(node.get("type", "")), inputs)
    return graph


def _widgets(node: Mapping[str, Any], sockets: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """A canvas node's plain values by name, as far as their names are known."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        yield from values.items()
        return
    values = values if isinstance(values, list) else []
    names = WIDGETS.get(str(node.get("type")))
    if names is None:
        names = [str(socket["widget"].get("name")) for socket in sockets if isinstance(socket.get("widget"), dict)]
        if len(names) != len(values):  # there are values without a name, so places mean nothing
            names = ["text"] if [type(value) for value in values] == [str] else []
    yield from zip(names, values, strict=False)


def _link(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and isinstance(value[1], int):
        return Link(str(value[0]), value[1])
    return value


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"the chunk {name} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise MetadataError(f"the chunk {name} is not ComfyUI's: expected an object, got {type(value).__name__}")
    return value
