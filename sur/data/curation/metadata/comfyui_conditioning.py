"""The texts behind a conditioning of ComfyUI: encoders, and nodes that pass a conditioning on, by class and output.

A node that is in neither table is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sur.data.curation.metadata.comfyui_graph import Node
from sur.data.curation.metadata.comfyui_pack_rules import populated_text
from sur.data.curation.metadata.comfyui_values import Inputs, Values
from sur.data.curation.metadata.generator_metadata import MetadataError

Groups = tuple[tuple[str, ...], ...]  # of an encoder's text inputs, the richest first: one group is used
_TEXT: dict[int, Groups] = {0: (("text",),)}
_PROMPT: dict[int, Groups] = {0: (("prompt",),)}
_LOADER: dict[int, Groups] = {1: (("positive",),), 2: (("negative",),)}

ENCODERS: dict[str, dict[int, Groups]] = {
    "CLIPTextEncode": _TEXT,
    "CLIPTextEncodeSDXL": {0: (("text_g", "text_l"),)},
    "CLIPTextEncodeSDXLRefiner": _TEXT,
    "CLIPTextEncodeSD3": {0: (("t5xxl",), ("clip_g", "clip_l"))},
    "CLIPTextEncodeFlux": {0: (("t5xxl",), ("clip_l",))},
    "CLIPTextEncodeHiDream": {0: (("llama",), ("t5xxl",), ("clip_g", "clip_l"))},
    "CLIPTextEncodeHunyuanDiT": {0: (("mt5xl",), ("bert",))},
    "CLIPTextEncodePixArtAlpha": _TEXT,
    "CLIPTextEncodeLumina2": {0: (("user_prompt",),)},
    "TextEncodeQwenImageEdit": _PROMPT,
    "TextEncodeQwenImageEditPlus": _PROMPT,
    "PhotoMakerEncode": _TEXT,
    "BNK_CLIPTextEncodeAdvanced": _TEXT,  # Advanced CLIP Text Encode
    "smZ CLIPTextEncode": _TEXT,
    "CLIPTextEncodeSDXL+": _TEXT,  # essentials
    "Text to Conditioning": _TEXT,  # WAS
    "ImpactWildcardEncode": {2: (("populated_text",),)},
    "Power Prompt (rgthree)": _PROMPT,
    "Power Prompt - Simple (rgthree)": _PROMPT,
    "Efficient Loader": _LOADER,
}

_ONE = (("conditioning",),)
_PAIR = (("positive",), ("negative",))
# Inputs that an output passes on, by the output's slot; "x*" is all of x1, x2 …; () is no text.
PASSED_ON: dict[str, Sequence[tuple[str, ...] | None]] = {
    "ConditioningCombine": (("conditioning_1", "conditioning_2"),),
    "ConditioningConcat": (("conditioning_to", "conditioning_from"),),
    "ConditioningAverage": (("conditioning_to", "conditioning_from"),),
    "ConditioningSetArea": _ONE,
    "ConditioningSetAreaPercentage": _ONE,
    "ConditioningSetAreaStrength": _ONE,
    "ConditioningSetMask": _ONE,
    "ConditioningSetTimestepRange": _ONE,
    "ConditioningZeroOut": ((),),
    "ConditioningSetProperties": (("cond_NEW",),),
    "ConditioningSetPropertiesAndCombine": (("cond", "cond_NEW"),),
    "ConditioningSetDefaultCombine": (("cond", "cond_DEFAULT"),),
    "PairConditioningSetProperties": (("positive_NEW",), ("negative_NEW",)),
    "PairConditioningSetPropertiesAndCombine": (("positive", "positive_NEW"), ("negative", "negative_NEW")),
    "PairConditioningSetDefaultCombine": (("positive", "positive_DEFAULT"), ("negative", "negative_DEFAULT")),
    "PairConditioningCombine": (("positive_A", "positive_B"), ("negative_A", "negative_B")),
    "ControlNetApply": _ONE,
    "ControlNetApplyAdvanced": _PAIR,
    "ControlNetApplySD3": _PAIR,
    "ControlNetInpaintingAliMamaApply": _PAIR,
    "ACN_AdvancedControlNetApply": _PAIR,
    "ACN_AdvancedControlNetApply_v2": _PAIR,
    "CLIPTextEncodeControlnet": _ONE,
    "InpaintModelConditioning": _PAIR,
    "InstructPixToPixConditioning": _PAIR,
    "SD_4XUpscale_Conditioning": _PAIR,
    "StableCascade_StageB_Conditioning": _ONE,
    "StyleModelApply": _ONE,
    "unCLIPConditioning": _ONE,
    "FluxGuidance": _ONE,
    "FluxDisableGuidance": _ONE,
    "FluxKontextMultiReferenceLatentMethod": _ONE,
    "ReferenceLatent": _ONE,
    "KSampler (Efficient)": (None, *_PAIR),
    "KSampler Adv. (Efficient)": (None, *_PAIR),
    "ImpactCombineConditionings": (("conditioning*",),),
    "ImpactConcatConditionings": (("conditioning*",),),
    "ConditioningCombineMultiple+": (("conditioning_*",),),
    "ConditioningMultiCombine": (("conditioning_*",),),
    "ConditioningSetMaskAndCombine": (("positive_*",), ("negative_*",)),
    "CondPassThrough": _PAIR,
}


def conditioning_texts(values: Values, start: Any, reader: Node) -> list[str]:
    """The texts behind a conditioning that a node reads, in the order of the graph.

    Raises: MetadataError when a node on the way is unknown or absent, or gives a text that is not known.
    """
    texts: list[str] = []
    waiting, seen = [(start, reader)], set()
    while waiting:
        link, node = values.source(*waiting.pop(), "conditioning")
        if link in seen:
            continue
        seen.add(link)
        if is_conditioning(node, link.slot):
            if node.kind in ENCODERS:
                texts.append(_encoded(values, node, ENCODERS[node.kind][link.slot]))
            waiting.extend(
                (node.inputs.get(name), node) for name in reversed(list(_passed_on(values, node, link.slot)))
            )
        elif node.kind in ENCODERS or node.kind in PASSED_ON:
            raise MetadataError(f"output {link.slot} of {node} is no conditioning that is known")
        else:
            raise MetadataError(f"{node} is neither a text encoder nor one that passes a conditioning on")
    return texts


def is_conditioning(node: Node, slot: int) -> bool:
    """Whether an output of a node is known to be a conditioning."""
    passed = PASSED_ON.get(node.kind, ())
    return slot in ENCODERS.get(node.kind, {}) or (0 <= slot < len(passed) and passed[slot] is not None)


def _encoded(values: Values, node: Node, groups: Groups) -> str:
    """The text that an encoder encodes: that of the first group that has one."""
    if node.kind == "ImpactWildcardEncode":
        return populated_text(Inputs(values, node, (node.id,)))
    if node.inputs.get("with_SDXL"):  # smZ's, which then encodes other inputs
        raise MetadataError(f"{node} encodes other texts with_SDXL, which is unknown here")
    for group in groups:
        texts = [values.text(node.inputs[name], node, (node.id,)) for name in group if name in node.inputs]
        if texts := list(dict.fromkeys(text for text in texts if text.strip())):
            return ", ".join(texts)
    if not any(name in node.inputs for group in groups for name in group):
        raise MetadataError(f"{node} has no input {groups[0][0]!r}, which is its text")
    return ""


def _passed_on(values: Values, node: Node, slot: int) -> Iterator[str]:
    """The names of the inputs that an output of a node passes on."""
    names = PASSED_ON[node.kind][slot] if node.kind in PASSED_ON else ()
    if node.kind == "ConditioningAverage":  # of the weights 1 and 0, one of the two is without effect
        weight = values.value(node.inputs.get("conditioning_to_strength"), node)
        names = ("conditioning_to",) if weight == 1 else ("conditioning_from",) if weight == 0 else names
    for name in names or ():
        if name.endswith("*"):
            numbered = re.compile(re.escape(name[:-1]) + r"\d+")
            found = [linked for linked, _ in node.links() if numbered.fullmatch(linked)]
            yield from sorted(found, key=lambda linked: int(linked.removeprefix(name[:-1])))
        else:
            yield name
