"""What the nodes of popular packs for ComfyUI give, as their sources compute it."""

from __future__ import annotations

import re
from collections.abc import Callable

from sur.data.curation.metadata.comfyui_rules import chosen, compiled, replaced, substituted, text_of
from sur.data.curation.metadata.comfyui_values import Inputs, Passing, Rule
from sur.data.curation.metadata.generator_metadata import MetadataError

_WILDCARD = re.compile(r"\{[^{}]*\|[^{}]*\}|__[\w.\-+/*\\]+?__")  # Impact Pack's, which it fills in by chance
_WAS_TOKEN = re.compile(r"\[(?:time|hostname|cuda_device|cuda_name|user)")  # WAS puts the machine's state there
_IMPACT_LORA = re.compile(r"<lora:[^>]+>")
_RGTHREE_LORA = re.compile(r"<lora:[^:>]*?(?::-?\d*(?:\.\d*)?)?>")


def populated_text(node: Inputs) -> str:
    """Impact Pack's text with its wildcards filled in. Raises: MetadataError where they are not."""
    text = node.text("populated_text")
    if _WILDCARD.search(text):
        raise MetadataError(f"{node.node} fills in the wildcards of its populated_text by chance")
    return text


def _selected_line(node: Inputs) -> str:
    if node.flag("multiline"):
        raise node.unknown("multiline", True)
    lines = node.text("strings").split("\n")
    return lines[node.whole("select") % len(lines)]


def _string_function(node: Inputs) -> str:
    """Custom Scripts' node that appends or replaces, and tidies commas."""
    action, tidy = node.text("action"), node.text("tidy_tags") == "yes"
    a, b, c = (node.text(name, "") for name in ("text_a", "text_b", "text_c"))
    if action == "append":
        made = (", " if tidy else "").join(text for text in (a, b, c) if text)
    elif action != "replace":
        raise node.unknown("action", action)
    elif len(b) > 1 and b.startswith("/") and b.endswith("/"):
        made = substituted(node, a, compiled(node, b[1:-1]), c)
    else:
        made = replaced(node, a, b, c)
    if tidy:
        made = re.sub(",{2,}", ",", re.sub(r"\s{2,}", " ", made).replace(" ,", ",")).strip()
    return made


def _power_prompt(node: Inputs) -> str:
    """rgthree's prompt as it leaves the node: without the LoRAs that the node loads, or is told to leave out."""
    loaded = {"opt_model", "opt_clip"} <= {name for name, _ in node.node.links()}
    text = node.text("prompt")
    return _RGTHREE_LORA.sub("", text) if loaded or node.node.inputs.get("insert_lora") == "DISABLE LORAS" else text


def _was_text(name: str, *default: str) -> Rule:
    """A text of the WAS suite, if none of it is replaced by the machine's time and name."""

    def rule(node: Inputs) -> str:
        text = node.text(name, *default)
        if _WAS_TOKEN.search(text):
            raise MetadataError(f"{node.node} puts the machine's time or name into its {name}")
        return text

    return rule


def _was_multiline(node: Inputs) -> str:
    lines = _was_text("text")(node).removesuffix("\n").split("\n")
    return "\n".join(line for line in lines if not line.strip().startswith("#"))


def _was_concatenate(node: Inputs) -> str:
    delimiter = node.text("delimiter")
    texts = [node.text(name, "") for name in ("text_a", "text_b", "text_c", "text_d")]
    if node.text("clean_whitespace") == "true":
        texts = [text.strip() for text in texts]
    return ("\n" if delimiter == "\\n" else delimiter).join(text for text in texts if text)


def _was_replace(node: Inputs) -> str:
    return substituted(node, node.text("text"), compiled(node, node.text("find")), node.text("replace"))


def _was_replace_until_gone(node: Inputs) -> str:
    text, find, new = (node.text(name) for name in ("text", "find", "replace"))
    if not find or find in new:  # the node itself would never end
        raise node.unknown("find", find)
    while find in text:
        text = text.replace(find, new, 1)
    return text


def _constant_multiline(node: Inputs) -> str:
    text = node.text("string")
    return text.replace("\n", "").strip() if node.flag("strip_newlines", True) else text


def _joined_many(node: Inputs) -> str:
    if node.flag("return_list", False):
        raise node.unknown("return_list", True)
    more = [node.text(f"string_{number}", "") for number in range(2, min(node.whole("inputcount"), 1000) + 1)]
    return node.text("delimiter").join([node.text("string_1"), *(text for text in more if text)])


def _joined(names: tuple[str, ...], delimiter: str) -> dict[int, Rule]:
    """The rule of a node that joins texts, empty ones included."""
    return {0: lambda node: node.text(delimiter, "").join(node.text(name, "") for name in names)}


def _three_replaced(name: str) -> dict[int, Rule]:
    def rule(node: Inputs) -> str:
        text = node.text(name)
        for number in (1, 2, 3):
            text = replaced(node, text, node.text(f"find{number}", ""), node.text(f"replace{number}", ""))
        return text

    return {0: rule}


def _part(place: int) -> Rule:
    def rule(node: Inputs) -> str:
        delimiter = node.text("delimiter", "")
        if not delimiter:
            raise node.unknown("delimiter", delimiter)
        parts = [part.strip() for part in node.text("text").split(delimiter)]
        return parts[place] if place < len(parts) else ""

    return rule


def _comfyroll_operation(node: Inputs) -> str:
    changes: dict[str, Callable[[str], str]] = {
        "uppercase": str.upper, "lowercase": str.lower, "capitalize": str.capitalize, "invert_case": str.swapcase,
        "reverse": lambda text: text[::-1], "trim": str.strip, "remove_spaces": lambda text: text.replace(" ", ""),
    }  # fmt: skip
    return chosen(node, "operation", changes)(node.text("text"))


def _blacklisted(node: Inputs) -> str:
    text = node.text("text")
    for line in node.text("blacklist_words").split("\n"):
        if line.strip():
            text = replaced(node, text, line.strip(), node.text("replacement_text", ""))
    return text


def _first_of_any(node: Inputs) -> str:
    return next((name for name in node.node.inputs if name.startswith("any_")), "any_01")


PACK_PASSES: dict[str, Passing] = {
    "Reroute (rgthree)": lambda node: next((name for name, _ in node.node.links()), ""),
    "ReroutePrimitive|pysssss": lambda node: "value",
    "ImpactSwitch": lambda node: f"input{node.whole('select')}",
    "LatentSwitch": lambda node: f"input{node.whole('select')}",
    "Any Switch (rgthree)": _first_of_any,
    "ShowText|pysssss": lambda node: "text",
    "easy showAnything": lambda node: "anything",
    "Text Input Switch": lambda node: "text_a" if node.flag("boolean", True) else "text_b",
    "Text to Console": lambda node: "text",
    "Text to String": lambda node: "text",
    "String to Text": lambda node: "string",
}

PACK_RULES: dict[str, dict[int, Rule]] = {
    # Custom Scripts (pysssss)
    "StringFunction|pysssss": {0: _string_function},
    # Impact Pack
    "ImpactWildcardProcessor": {0: populated_text},
    "ImpactWildcardEncode": {3: lambda node: _IMPACT_LORA.sub("", populated_text(node))},
    "ImpactStringSelector": {0: _selected_line},
    # rgthree
    "Power Prompt (rgthree)": {3: _power_prompt},
    "Power Prompt - Simple (rgthree)": {1: lambda node: node.text("prompt")},
    # WAS Node Suite
    "Text Multiline": {0: _was_multiline},
    "Text Multiline (Code Compatible)": {0: _was_text("text")},
    "Text String": {slot: _was_text(name, "") for slot, name in enumerate(("text", "text_b", "text_c", "text_d"))},
    "Text Concatenate": {0: _was_concatenate},
    "Text Find and Replace": {0: _was_replace},
    "Text Find and Replace Input": {0: _was_replace_until_gone},
    # KJNodes
    "StringConstant": text_of("string"),
    "StringConstantMultiline": {0: _constant_multiline},
    "JoinStrings": _joined(("string1", "string2"), "delimiter"),
    "JoinStringMulti": {0: _joined_many},
    # Comfyroll; the last output of its nodes is the address of a help page
    "CR Text": text_of("text"),
    "CR Prompt Text": text_of("prompt"),
    "CR Combine Prompt": _joined(("part1", "part2", "part3", "part4"), "separator"),
    "CR Text Concatenate": _joined(("text1", "text2"), "separator"),
    "CR Text Replace": _three_replaced("text"),
    "CR Text Operation": {0: _comfyroll_operation},
    "CR Text Blacklist": {0: _blacklisted},
    "CR Split String": {place: _part(place) for place in range(4)},
    # Easy Use
    "easy positive": text_of("positive"),
    "easy negative": text_of("negative"),
    "easy string": text_of("value"),
    "easy promptConcat": _joined(("prompt1", "prompt2"), "separator"),
    "easy promptReplace": _three_replaced("prompt"),
}
