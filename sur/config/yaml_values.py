"""YAML read as plain values, within bounds that settings never reach: a hostile file costs no more than a large one."""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 20_000  # with aliases written out: a few lines of aliases can stand for billions of values
DEEPEST_VALUE = 50  # mappings and lists inside one another
LARGEST_WHOLE = 2**63  # from which on a whole number is no setting of anything
MOST_CHARACTERS = 200  # of a value that a message repeats
_MERGE = "tag:yaml.org,2002:merge"


class BadYAML(ValueError):
    """A text is no YAML, or one that is no settings; the message says why."""


def read_values(text: str) -> Any:
    """The value of a YAML text. Raises: BadYAML when it is none, gives a key twice, or is out of all bounds."""
    loader: _SettingsLoader | None = None
    try:
        loader = _SettingsLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}, set(), 0) > MOST_VALUES:
            raise BadYAML(f"it has more than {MOST_VALUES} values, its aliases written out; write fewer")
        return loader.construct_document(node)
    except RecursionError:
        raise BadYAML(f"it nests more than {DEEPEST_VALUE} levels; write fewer") from None
    except BadYAML:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, LookupError, AttributeError) as error:
        raise BadYAML(str(error)) from None  # of a date that there is not, a number of thousands of digits, ...
    finally:
        if loader is not None:
            loader.dispose()


def shortened(text: str) -> str:
    """A text that a message repeats, without what is beyond 200 characters."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}… ({len(text)} characters)"


class _SettingsLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, of which YAML itself takes the last, and numbers beyond reason."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name, _ in node.value:
            if name.tag == _MERGE:
                continue
            key = self.construct_object(name, deep=True)  # pyright: ignore[reportArgumentType]
            line = name.start_mark.line + 1
            if isinstance(key, (dict, list, set)):
                raise BadYAML(f"a mapping or list is a key in line {line}; write a name")
            if key in seen:
                raise BadYAML(f"key '{shortened(str(key))}' is given twice, the second time in line {line}; remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= LARGEST_WHOLE:
            raise BadYAML(f"the number in line {node.start_mark.line + 1} is larger than any setting; correct it")
        return value


_SettingsLoader.add_constructor("tag:yaml.org,2002:int", _SettingsLoader.construct_yaml_int)


def _count(node: yaml.Node, known: dict[int, int], above: set[int], depth: int) -> int:
    """The number of values in a node, with its aliases written out."""
    if id(node) in above:
        raise BadYAML(f"an alias in line {node.start_mark.line + 1} contains itself; write its value")
    if depth > DEEPEST_VALUE:
        raise BadYAML(f"it nests more than {DEEPEST_VALUE} levels; write fewer")
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        above.add(id(node))
        known[id(node)] = 1 + sum(_count(part, known, above, depth + 1) for part in inner)
        above.remove(id(node))
    return known[id(node)]
