"""ComfyUI's graph as the chunk `workflow` has it: the canvas, as a person drew it.

{"nodes": [{"id": 6, "type": ..., "mode": 0, "inputs": [{"name", "type", "link"}], "widgets_values": [...]}],
 "links": [[link, from node, from slot, to node, to slot, type]],
 "definitions": {"subgraphs": [{"id": UUID, "nodes", "links", "inputs", "outputs"}]}}

A node whose type is a subgraph's id stands for the subgraph's nodes, which get ids such as 57:6, as in what ran. Inside
a subgraph, node -10 gives its inputs and node -20 takes its outputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sur.data.curation.metadata.comfyui_graph import Graph, Link, Node, json_object
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
    "SetNode": ("name",),
    "GetNode": ("name",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "StringReplace": ("string", "find", "replace"),
    "StringSubstring": ("string", "start", "end"),
    "StringTrim": ("string", "mode"),
    "CaseConverter": ("string", "mode"),
    "RegexReplace": ("string", "regex_pattern", "replace", "case_insensitive", "multiline", "dotall", "count"),
    "RegexExtract": ("string", "regex_pattern", "mode", "case_insensitive", "multiline", "dotall", "group_index"),
}  # fmt: skip
MUTED, BYPASSED = 2, 4
SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS = "-10", "-20"  # ids inside a subgraph
MOST_NODES = 20_000  # of a canvas, with the nodes of its subgraphs: a few nested ones could stand for billions
DEEPEST_SUBGRAPH = 20


class UnnamedValue:
    """A widget's value that cannot be told from its neighbours; it is neither a text nor a number."""


class _Wire(NamedTuple):
    id: Any
    origin: str
    slot: int
    target: str
    target_slot: Any


_ABSENT = object()


def graph_of_canvas(text: str) -> Graph:
    """The graph of the chunk `workflow`, without muted nodes. Raises: MetadataError when it is none."""
    canvas = json_object(text, "workflow")
    if not isinstance(canvas.get("nodes"), list) or not isinstance(canvas.get("links"), list):
        raise MetadataError("the chunk workflow is not ComfyUI's: it has no lists `nodes` and `links`")
    definitions = canvas.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, dict) else None
    known = {str(sheet.get("id")): sheet for sheet in subgraphs or [] if isinstance(sheet, dict)}
    flat = _FlatCanvas(known)
    flat.add(canvas, "", {})
    return flat.graph()


class _FlatCanvas:
    """The nodes of a canvas and of its subgraphs, on one level."""

    def __init__(self, subgraphs: Mapping[str, Mapping[str, Any]]) -> None:
        self._subgraphs = subgraphs
        self._count = 0
        self._nodes: dict[str, tuple[str, dict[str, Any], dict[str, Link]]] = {}  # id -> kind, plain inputs, links
        self._stands_for: dict[Link, Any] = {}  # an output that is another output, or a plain value
        self._widget_behind: dict[Link, Any] = {}  # the plain value of such an output when its wire ends at nothing

    def graph(self) -> Graph:
        """The nodes, each input traced to the node that makes it."""
        return {
            id_: Node(id_, kind, {**plain, **self._traced(linked)})
            for id_, (kind, plain, linked) in self._nodes.items()
        }

    def add(self, sheet: Mapping[str, Any], path: str, values: Mapping[tuple[str, str], Any]) -> list[_Wire]:
        """Add the nodes of a sheet; returns its wires.

        path: in front of its nodes' ids. values: by node and widget, those that the sheet's own node sets.
        """
        if path.count(":") > DEEPEST_SUBGRAPH:
            raise MetadataError(f"the canvas nests more than {DEEPEST_SUBGRAPH} subgraphs")
        wires = list(_wires(sheet.get("links")))
        ends = {wire.id: Link(path + wire.origin, wire.slot) for wire in wires}
        named: dict[str, Link] = {}  # outputs that KJNodes' SetNode gives to its GetNode by a name
        getters: dict[Link, str] = {}
        for node in sheet.get("nodes") or []:
            if not isinstance(node, dict) or node.get("mode") == MUTED:
                continue
            self._count += 1
            if self._count > MOST_NODES:
                raise MetadataError(f"the canvas has more than {MOST_NODES} nodes")
            own, kind = str(node.get("id")), str(node.get("type", ""))
            sockets = [socket for socket in node.get("inputs") or [] if isinstance(socket, dict)]
            linked = {str(s.get("name")): ends[s["link"]] for s in sockets if _hashable(s.get("link")) in ends}
            if node.get("mode") == BYPASSED:
                self._bypass(path + own, node, sockets, ends)
                continue
            set_above = {name: value for (inner, name), value in values.items() if inner == own}
            if kind in self._subgraphs:
                self._add_subgraph(path + own, node, sockets, linked, set_above)
                continue
            plain = {**dict(_widgets(node, sockets)), **set_above}
            if kind == "GetNode":
                getters[Link(path + own, 0)] = str(plain.get("name"))
            elif kind == "SetNode" and linked:
                named[str(plain.get("name"))] = next(iter(linked.values()))
            self._nodes[path + own] = (kind, plain, linked)
        self._stands_for |= {getter: named.get(name, _ABSENT) for getter, name in getters.items()}
        return wires

    def _add_subgraph(
        self,
        id_: str,
        node: Mapping[str, Any],
        sockets: Sequence[Mapping[str, Any]],
        linked: Mapping[str, Any],
        set_above: Mapping[str, Any],
    ) -> None:
        """Add the nodes that a subgraph's node stands for."""
        sheet = self._subgraphs[str(node.get("type"))]
        own, inner = _promoted(node, sockets)
        plain = {**own, **set_above}
        inner |= {(target, name): set_above[name] for target, name in inner if name in set_above}
        names = [str(entry.get("name")) for entry in sheet.get("inputs") or [] if isinstance(entry, dict)]
        for slot, name in enumerate(names):
            link = Link(f"{id_}:{SUBGRAPH_INPUTS}", slot)
            self._stands_for[link] = linked.get(name, plain.get(name, _ABSENT))
            self._widget_behind[link] = plain.get(name, _ABSENT)
        for wire in self.add(sheet, f"{id_}:", inner):
            if wire.target == SUBGRAPH_OUTPUTS and isinstance(wire.target_slot, int):
                self._stands_for[Link(id_, wire.target_slot)] = Link(f"{id_}:{wire.origin}", wire.slot)

    def _bypass(
        self, id_: str, node: Mapping[str, Any], sockets: Sequence[Mapping[str, Any]], ends: Mapping[Any, Link]
    ) -> None:
        """Let each output of a bypassed node be the input of its type: the one at its place, else the first."""
        for slot, output in enumerate(node.get("outputs") or []):
            kind = output.get("type") if isinstance(output, dict) else None
            ordered = [*sockets[slot : slot + 1], *sockets]
            match = next((socket for socket in ordered if socket.get("type") == kind), None)
            link = _hashable(match.get("link")) if match is not None else None
            self._stands_for[Link(id_, slot)] = ends.get(link, _ABSENT)

    def _traced(self, linked: Mapping[str, Link]) -> dict[str, Any]:
        """A node's linked inputs, without those whose wire ends at nothing: there the node's widget holds."""
        traced = {}
        for name, link in linked.items():
            value: Any = link
            widget: Any = _ABSENT
            seen: set[Link] = set()
            while isinstance(value, Link) and value in self._stands_for and value not in seen:
                seen.add(value)
                behind = self._widget_behind.get(value, _ABSENT)
                widget, value = widget if behind is _ABSENT else behind, self._stands_for[value]
            value = widget if value is _ABSENT else value
            if value is not _ABSENT:
                traced[name] = value
        return traced


def _wires(links: Any) -> Iterator[_Wire]:
    """The wires of a sheet; a subgraph's are objects."""
    for wire in links if isinstance(links, list) else []:
        if isinstance(wire, list) and len(wire) >= 5:
            id_, origin, slot, target, target_slot = wire[:5]
        elif isinstance(wire, dict):
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            id_, origin, slot, target, target_slot = (wire.get(name) for name in names)
        else:
            continue
        if isinstance(slot, int) and _hashable(id_) is not None:
            yield _Wire(id_, str(origin), slot, str(target), target_slot)


def _widgets(node: Mapping[str, Any], sockets: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """A canvas node's plain values by name, as far as their names are known."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        yield from ((str(name), value) for name, value in values.items())
        return
    values = values if isinstance(values, list) else []
    names = WIDGETS.get(str(node.get("type")))
    if names is None:
        names = _widget_names(sockets)
        if len(names) != len(values):  # there are values without a name, so places mean nothing
            names = []
    yield from zip(names, values, strict=False)


def _promoted(
    node: Mapping[str, Any], sockets: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """The values that a subgraph's node sets: those of its own inputs by name, and those of inner nodes' widgets."""
    properties = node.get("properties")
    listed = properties.get("proxyWidgets") if isinstance(properties, dict) else None
    if isinstance(listed, str):
        try:
            listed = json.loads(listed)
        except ValueError:
            listed = None
    pairs = [(str(entry[0]), str(entry[1])) for entry in listed or [] if isinstance(entry, list) and len(entry) >= 2]
    pairs = pairs or [("-1", name) for name in _widget_names(sockets)]
    values = node.get("widgets_values")
    if isinstance(values, dict):
        values = [values.get(name, UnnamedValue()) for _, name in pairs]
    if not values:  # the inner nodes have the values themselves
        return {}, {}
    if len(values) != len(pairs):
        values = [UnnamedValue()] * len(pairs)
    own = {name: value for (target, name), value in zip(pairs, values, strict=True) if target == "-1"}
    return own, {pair: value for pair, value in zip(pairs, values, strict=True) if pair[0] != "-1"}


def _widget_names(sockets: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(socket["widget"].get("name")) for socket in sockets if isinstance(socket.get("widget"), dict)]


def _hashable(value: Any) -> Any:
    """An id as it may stand in a dictionary; None for lists and objects."""
    return value if isinstance(value, (str, int)) else None
