"""The values of ComfyUI's nodes: texts, numbers and choices, computed as the nodes compute them.

A node is known by its class, and each of its outputs by its slot. A node or an output without a rule is refused by
name: the names of inputs tell nothing (the `text` of a node that shortens texts is not the text that it gives).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sur.data.curation.metadata.comfyui_graph import Graph, Link, Node, node_behind
from sur.data.curation.metadata.generator_metadata import MetadataError

DEEPEST = 100  # nodes between a text encoder and where its text is written
LONGEST = 200_000  # characters of one text: a chain of nodes could double it a hundred times
_NO_DEFAULT: Any = object()


class Values:
    """The values of one graph's outputs, each computed once.

    rules: what each output of a node is, by the node's class and the output's slot. passes: the input that a node's
    first output is, by the node's class.
    """

    def __init__(self, graph: Graph, rules: Mapping[str, Mapping[int, Rule]], passes: Mapping[str, Passing]) -> None:
        self.graph = graph
        self._rules, self._passes = rules, passes
        self._known: dict[Link, Any] = {}

    def value(self, value: Any, reader: Node, above: tuple[str, ...] = ()) -> Any:
        """A plain value as it is, or the value behind a link.

        reader: the node that reads it. above: nodes that wait for it.
        Raises: MetadataError when a node on the way is unknown or absent.
        """
        if not isinstance(value, Link):
            return value
        if value not in self._known:
            node = node_behind(self.graph, value, reader)
            if node.id in above or len(above) > DEEPEST:
                raise MetadataError(f"the text of {reader} comes from itself, or from too far")
            made = self._made(node, value.slot, reader, (*above, node.id))
            if isinstance(made, str) and len(made) > LONGEST:
                raise MetadataError(f"the text that {node} makes is longer than {LONGEST} characters")
            self._known[value] = made
        return self._known[value]

    def text(self, value: Any, reader: Node, above: tuple[str, ...] = ()) -> str:
        """A text, or the text behind a link. Raises: MetadataError as `value`, and when it is no text."""
        made = self.value(value, reader, above)
        if not isinstance(made, str):
            raise MetadataError(f"{reader} has {type(made).__name__} where its text should be")
        return made

    def source(self, link: Any, reader: Node, reads: str) -> tuple[Link, Node]:
        """The output that a link gives once reroutes and switches are passed, and its node.

        reads: the kind of input, for the message. Raises: MetadataError when there is no such node, or no link.
        """
        passed: set[Link] = set()
        while True:
            if not isinstance(link, Link) or link in passed:
                raise MetadataError(f"{reader} has no link where its {reads} should be")
            passed.add(link)
            node = node_behind(self.graph, link, reader)
            if node.kind not in self._passes or link.slot != 0:
                return link, node
            inputs = Inputs(self, node, (node.id,))
            link, reader = node.inputs.get(self._passes[node.kind](inputs)), node

    def _made(self, node: Node, slot: int, reader: Node, above: tuple[str, ...]) -> Any:
        """The value of one output of a node."""
        inputs = Inputs(self, node, above)
        if node.kind in self._passes and slot == 0:
            return inputs.any(self._passes[node.kind](inputs))
        if node.kind not in self._rules:
            raise MetadataError(f"the text of {reader} is made by {node}, which is unknown")
        if slot not in self._rules[node.kind]:
            raise MetadataError(f"the text of {reader} is output {slot} of {node}, which is unknown")
        return self._rules[node.kind][slot](inputs)


class Inputs:
    """The inputs of one node by name, computed when they are asked for. Raises: MetadataError for a missing one."""

    def __init__(self, values: Values, node: Node, above: tuple[str, ...]) -> None:
        self.node = node
        self._values, self._above = values, above

    def any(self, name: str, default: Any = _NO_DEFAULT) -> Any:
        """An input of any type."""
        value = self.node.inputs.get(name, default)
        if value is _NO_DEFAULT:
            raise MetadataError(f"{self.node} has no input {name!r}, and without it its output is not known")
        return self._values.value(value, self.node, self._above)

    def text(self, name: str, default: Any = _NO_DEFAULT) -> str:
        """An input that is a text."""
        return self._values.text(self.any(name, default), self.node)

    def whole(self, name: str, default: Any = _NO_DEFAULT) -> int:
        """An input that is a whole number."""
        value = self.any(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
            raise self.unknown(name, value)
        return int(value)

    def flag(self, name: str, default: Any = _NO_DEFAULT) -> bool:
        """An input that is true or false."""
        value = self.any(name, default)
        if not isinstance(value, bool):
            raise self.unknown(name, value)
        return value

    def unknown(self, name: str, value: Any) -> MetadataError:
        """The error for a value of an input that the node does not have."""
        return MetadataError(
            f"{self.node}: its {name} is {str(value)[:60]!r}, and what the node does with it is unknown"
        )


Rule = Callable[[Inputs], Any]
Passing = Callable[[Inputs], str]
