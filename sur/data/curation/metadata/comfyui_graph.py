"""ComfyUI's graph of nodes by id, each with its inputs by name, as the chunk `prompt` has what ran.

{"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sur.data.curation.metadata.generator_metadata import MetadataError


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

    def __str__(self) -> str:
        return f"node {self.id} ({self.kind})"


Graph = dict[str, Node]


def graph_that_ran(text: str) -> Graph:
    """The graph of the chunk `prompt`. Raises: MetadataError when it is none."""
    graph = {}
    for name, node in json_object(text, "prompt").items():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            raise MetadataError(f"the chunk prompt is not ComfyUI's: its entry {name!r} is no node with inputs")
        inputs = {key: _link(value) for key, value in node["inputs"].items()}
        graph[str(name)] = Node(str(name), str(node.get("class_type", "")), inputs)
    return graph


def node_behind(graph: Graph, link: Link, reader: Node) -> Node:
    """The node whose output a link is. Raises: MetadataError when the graph does not have it."""
    if link.node not in graph:
        raise MetadataError(f"{reader} reads node {link.node}, which the graph does not have")
    return graph[link.node]


def json_object(text: str, chunk: str) -> dict[str, Any]:
    """The JSON object of a chunk. Raises: MetadataError when it is none."""
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"the chunk {chunk} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise MetadataError(f"the chunk {chunk} is not ComfyUI's: expected an object, got {type(value).__name__}")
    return value


def _link(value: Any) -> Any:
    """An input of what ran; ComfyUI takes a list of a node's id and a slot for a link, and nothing else."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int:
        return Link(value[0], value[1])
    return value
