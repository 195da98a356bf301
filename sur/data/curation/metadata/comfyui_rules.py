"""What ComfyUI's own nodes give, as its nodes_string.py, nodes_primitive.py and nodes_logic.py compute it."""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import regex

from sur.data.curation.metadata.comfyui_values import LONGEST, Inputs, Passing, Rule
from sur.data.curation.metadata.generator_metadata import MetadataError

LONGEST_REPLACED = 50_000_000  # characters that a replacement could make at most
PATTERN_SECONDS = 1.0  # for one pattern on one text; some patterns would take years


def text_of(name: str) -> dict[int, Rule]:
    """The rule of a node whose only output is one of its texts."""
    return {0: lambda node: node.text(name)}


def replaced(node: Inputs, text: str, find: str, new: str) -> str:
    """`text.replace`. Raises: MetadataError when it would make a text of gigabytes."""
    if (text.count(find) if find else len(text) + 1) * len(new) > LONGEST_REPLACED:
        raise MetadataError(f"the text that {node.node} makes is longer than {LONGEST} characters")
    return text.replace(find, new)


def substituted(node: Inputs, text: str, pattern: Any, new: str, count: int = 0) -> str:
    """`re.sub` of a compiled pattern. Raises: MetadataError when it takes too long, or would make gigabytes."""
    if (len(text) + 1) * len(new) > LONGEST_REPLACED:
        raise MetadataError(f"the text that {node.node} makes is longer than {LONGEST} characters")
    try:
        return pattern.sub(new, text, count=count, timeout=PATTERN_SECONDS)
    except TimeoutError:
        raise MetadataError(f"{node.node}: its pattern takes longer than {PATTERN_SECONDS:g} s on its text") from None
    except (regex.error, IndexError, ValueError) as error:
        raise MetadataError(f"{node.node}: its replacement does not fit its pattern ({error})") from None


def compiled(node: Inputs, pattern: str, flags: int = 0) -> Any:
    """A regular expression as Python's `re` reads it, in the module `regex`, which can stop after a time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # re warns where a later version will read a pattern otherwise
            re.compile(pattern, flags)
            if re.search(r"\{[a-z]", pattern):
                raise ValueError("the modules re and regex read it differently")
            return regex.compile(pattern, flags)
    except (re.error, regex.error, Warning, ValueError, RecursionError, OverflowError) as error:
        raise MetadataError(f"{node.node}: its pattern is not one that can be computed ({error})") from None


def chosen(node: Inputs, name: str, choices: Mapping[str, Callable[[str], str]]) -> Callable[[str], str]:
    """The function that an input chooses by its name. Raises: MetadataError for another name."""
    choice = node.text(name)
    if choice not in choices:
        raise node.unknown(name, choice)
    return choices[choice]


def _pattern(node: Inputs) -> Any:
    flags = {"case_insensitive": (re.I, True), "multiline": (re.M, False), "dotall": (re.S, False)}
    chosen_flags = sum(flag for name, (flag, default) in flags.items() if node.flag(name, default))
    return compiled(node, node.text("regex_pattern"), int(chosen_flags))


def _regex_replace(node: Inputs) -> str:
    return substituted(node, node.text("string"), _pattern(node), node.text("replace"), node.whole("count", 0))


def _regex_extract(node: Inputs) -> str:
    pattern, mode, group = _pattern(node), node.text("mode"), node.whole("group_index", 1)
    if mode not in ("First Match", "All Matches", "First Group", "All Groups") or group < 0:
        raise node.unknown("mode", f"{mode}, group {group}")
    try:
        matches = list(pattern.finditer(node.text("string"), timeout=PATTERN_SECONDS))
    except TimeoutError:
        raise MetadataError(f"{node.node}: its pattern takes longer than {PATTERN_SECONDS:g} s on its text") from None
    matches = matches[:1] if mode.startswith("First") else matches
    if mode == "First Match":
        group = 0
    elif mode == "All Matches":  # as re.findall: the first group where there is one, "" where it matches nothing
        return "\n".join(match.group(1 if pattern.groups else 0) or "" for match in matches)
    texts = [match.group(group) for match in matches if group <= pattern.groups]
    return "\n".join(text for text in texts if text is not None)


def _case(node: Inputs) -> str:
    changes = {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}
    return chosen(node, "mode", changes)(node.text("string"))


def _trim(node: Inputs) -> str:
    return chosen(node, "mode", {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip})(node.text("string"))


def _format(node: Inputs) -> str:
    """StringFormat with plain fields such as {a}: others could look into Python's objects, or pad to gigabytes."""
    text = node.text("f_string")
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise MetadataError(f"{node.node}: its f_string is no format ({error})") from None
    made = []
    for literal, field, spec, conversion in parts:
        made.append(literal)
        if field is not None:
            if not field.isidentifier() or spec or conversion:
                raise node.unknown("f_string", text)
            made.append(str(node.any(f"values.{field}")))
    return "".join(made)


def _compare(node: Inputs) -> bool:
    a, b, mode = node.text("string_a"), node.text("string_b"), node.text("mode")
    if not node.flag("case_sensitive", True):
        a, b = a.lower(), b.lower()
    if mode not in ("Equal", "Starts With", "Ends With"):
        raise node.unknown("mode", mode)
    return a == b if mode == "Equal" else a.startswith(b) if mode == "Starts With" else a.endswith(b)


def _contains(node: Inputs) -> bool:
    text, part = node.text("string"), node.text("substring")
    return part in text if node.flag("case_sensitive", True) else part.lower() in text.lower()


def _sole_link(node: Inputs) -> str:
    names = [name for name, _ in node.node.links()]
    if len(names) != 1:
        raise MetadataError(f"{node.node} has {len(names)} links where it should have one")
    return names[0]


CORE_PASSES: dict[str, Passing] = {
    "Reroute": _sole_link,
    "ComfySwitchNode": lambda node: "on_true" if node.flag("switch") else "on_false",
    "PreviewAny": lambda node: "source",
}

CORE_RULES: dict[str, dict[int, Rule]] = {
    "PrimitiveString": text_of("value"),
    "PrimitiveStringMultiline": text_of("value"),
    "PrimitiveNode": {0: lambda node: node.any("value")},
    "PrimitiveInt": {0: lambda node: node.whole("value")},
    "PrimitiveFloat": {0: lambda node: node.any("value")},
    "PrimitiveBoolean": {0: lambda node: node.flag("value")},
    "CustomCombo": {0: lambda node: node.text("choice"), 1: lambda node: node.whole("index", 0)},
    "StringConcatenate": {
        0: lambda node: node.text("delimiter", "").join((node.text("string_a"), node.text("string_b")))
    },
    "StringSubstring": {0: lambda node: node.text("string")[node.whole("start") : node.whole("end")]},
    "StringLength": {0: lambda node: len(node.text("string"))},
    "StringReplace": {0: lambda node: replaced(node, node.text("string"), node.text("find"), node.text("replace"))},
    "StringTrim": {0: _trim},
    "StringFormat": {0: _format},
    "StringContains": {0: _contains},
    "StringCompare": {0: _compare},
    "CaseConverter": {0: _case},
    "RegexReplace": {0: _regex_replace},
    "RegexExtract": {0: _regex_extract},
}
