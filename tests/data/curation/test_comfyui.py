"""ComfyUI's graphs: every text is what the graph's nodes make of it, or the node that is not known is named."""

import io
import json
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from sur.data.curation.metadata.comfyui import read_comfyui
from sur.data.curation.metadata.generator_metadata import MetadataError


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def graph(**changed) -> dict:
    """A drawn picture, whose positive text comes from output 0 of node 20, with nodes changed or added."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="b.safetensors"),
        "2": node("CLIPTextEncode", text=["20", 0], clip=["1", 1]),
        "3": node("CLIPTextEncode", text="smudged", clip=["1", 1]),
        "4": node("KSampler", positive=["2", 0], negative=["3", 0], latent_image=["5", 0], model=["1", 0], steps=12),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "7": node("SaveImage", images=["6", 0], filename_prefix="x"),
        **{name.removeprefix("n"): value for name, value in changed.items()},
    }


def prompt_of(changed: dict) -> Any:
    """The metadata of a graph as it ran."""
    return read_comfyui(json.dumps(changed), None)


def made(kind: str, slot: int = 0, **inputs) -> str:
    """The prompt of a graph whose text is an output of a node."""
    found = prompt_of(graph(n2=node("CLIPTextEncode", text=["20", slot]), n20=node(kind, **inputs)))
    return found.prompt


@pytest.mark.parametrize(
    ("kind", "inputs", "text"),
    [
        ("StringReplace", {"string": "a red barn, a red door", "find": "red", "replace": "grey"},
         "a grey barn, a grey door"),
        ("StringReplace", {"string": "ab", "find": "", "replace": "-"}, "-a-b-"),
        ("StringSubstring", {"string": "a windmill in fog", "start": 2, "end": 10}, "windmill"),
        ("StringSubstring", {"string": "a windmill in fog", "start": -3, "end": 99}, "fog"),
        ("StringConcatenate", {"string_a": "dusk", "string_b": "pier", "delimiter": " / "}, "dusk / pier"),
        ("StringTrim", {"string": "  inn \n", "mode": "Both"}, "inn"),
        ("StringTrim", {"string": "  inn ", "mode": "Left"}, "inn "),
        ("StringTrim", {"string": "  inn ", "mode": "Right"}, "  inn"),
        ("CaseConverter", {"string": "an OLD inn", "mode": "UPPERCASE"}, "AN OLD INN"),
        ("CaseConverter", {"string": "an OLD inn", "mode": "lowercase"}, "an old inn"),
        ("CaseConverter", {"string": "an OLD inn", "mode": "Capitalize"}, "An old inn"),
        ("CaseConverter", {"string": "an OLD inn", "mode": "Title Case"}, "An Old Inn"),
        ("RegexReplace", {"string": "Fox, fox, fox", "regex_pattern": "fox", "replace": "owl"}, "owl, owl, owl"),
        ("RegexReplace", {"string": "Fox, fox, fox", "regex_pattern": "fox", "replace": "owl", "count": 1,
                          "case_insensitive": False}, "Fox, owl, fox"),
        ("RegexReplace", {"string": "two foxes", "regex_pattern": r"(\w+) (\w+)", "replace": r"\2 by \1"},
         "foxes by two"),
        ("RegexReplace", {"string": "a\nb", "regex_pattern": "a.b", "replace": "c", "dotall": True}, "c"),
        ("RegexExtract", {"string": "oak 12, elm 9", "regex_pattern": r"([a-z]+) (\d+)", "mode": "First Match"},
         "oak 12"),
        ("RegexExtract", {"string": "oak 12, elm 9", "regex_pattern": r"([a-z]+) (\d+)", "mode": "All Matches"},
         "oak\nelm"),
        ("RegexExtract", {"string": "oak 12, elm 9", "regex_pattern": r"([a-z]+) (\d+)", "mode": "All Groups",
                          "group_index": 2}, "12\n9"),
        ("StringFormat", {"f_string": "{a} of {b}", "values.a": "fields", "values.b": "rye"}, "fields of rye"),
        ("PrimitiveStringMultiline", {"value": "a quay\nat noon"}, "a quay\nat noon"),
        ("CustomCombo", {"choice": "linocut", "index": 3}, "linocut"),
        ("ComfySwitchNode", {"switch": False, "on_true": "day", "on_false": "night"}, "night"),
        ("StringFunction|pysssss", {"action": "append", "tidy_tags": "yes", "text_a": "elm ,", "text_b": "oak"},
         "elm, oak"),
        ("StringFunction|pysssss", {"action": "replace", "tidy_tags": "no", "text_a": "elm 7", "text_b": r"/\d/",
                                    "text_c": "ash"}, "elm ash"),
        ("ImpactWildcardProcessor", {"wildcard_text": "a __tree__", "populated_text": "a yew", "mode": "populate"},
         "a yew"),
        ("ImpactSwitch", {"select": 2, "sel_mode": False, "input1": "brick", "input2": "slate"}, "slate"),
        ("ImpactStringSelector", {"strings": "brick\nslate\nthatch", "multiline": False, "select": 4}, "slate"),
        ("Text Concatenate", {"delimiter": "; ", "clean_whitespace": "true", "text_a": " a ", "text_b": "",
                              "text_c": "c"}, "a; c"),
        ("Text Find and Replace", {"text": "b1 b2", "find": r"b\d", "replace": "hut"}, "hut hut"),
        ("Text Multiline", {"text": "a hut\n# not this\nby a lake\n"}, "a hut\nby a lake"),
        ("JoinStrings", {"delimiter": "+", "string1": "a", "string2": "b"}, "a+b"),
        ("JoinStringMulti", {"inputcount": 3, "delimiter": "+", "string_1": "a", "string_3": "c",
                             "return_list": False}, "a+c"),
        ("StringConstantMultiline", {"string": " a\nb ", "strip_newlines": True}, "ab"),
        ("CR Text Replace", {"text": "a cat", "find1": "cat", "replace1": "hen", "find2": "hen", "replace2": "goose"},
         "a goose"),
        ("CR Combine Prompt", {"part1": "a", "part2": "b", "part3": "", "part4": "d", "separator": ","}, "a,b,,d"),
        ("easy promptConcat", {"prompt1": "a", "prompt2": "b", "separator": " and "}, "a and b"),
    ],
)  # fmt: skip
def test_a_text_is_what_its_node_makes_of_it(kind, inputs, text):
    assert made(kind, **inputs) == text


def test_a_text_through_several_nodes_is_computed_from_end_to_end():
    found = prompt_of(graph(
        n20=node("StringReplace", string=["21", 0], find=["24", 0], replace="marble"),
        n21=node("StringSubstring", string=["22", 0], start=0, end=["25", 0]),
        n22=node("StringConcatenate", string_a=["23", 0], string_b=" IN RAIN", delimiter=""),
        n23=node("CaseConverter", string="a stone lion", mode="UPPERCASE"),
        n24=node("PrimitiveString", value="STONE"),
        n25=node("PrimitiveInt", value=15),
    ))  # fmt: skip
    assert found.prompt == "A marble LION IN"


@pytest.mark.parametrize(
    ("kind", "slot", "inputs", "text"),
    [
        ("Text String", 2, {"text": "zero", "text_b": "one", "text_c": "two", "text_d": "three"}, "two"),
        ("CR Split String", 1, {"text": "gable; eaves ; ridge", "delimiter": ";"}, "eaves"),
        ("Power Prompt (rgthree)", 3, {"prompt": "a barge<lora:x:0.5>", "insert_lora": "DISABLE LORAS"}, "a barge"),
    ],
)
def test_a_node_of_several_outputs_gives_that_of_the_slot(kind, slot, inputs, text):
    assert made(kind, slot, **inputs) == text


def test_a_loader_of_both_prompts_gives_each_by_its_slot():
    loader = node("Efficient Loader", positive=["20", 0], negative="fog", ckpt_name="b")
    swapped = graph(
        n9=loader, n20=node("PrimitiveString", value="a mill"),
        n4=node("KSampler", positive=["9", 2], negative=["9", 1], latent_image=["9", 3]),
    )  # fmt: skip
    found = prompt_of(swapped)
    assert (found.prompt, found.negative) == ("fog", "a mill")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"n20": node("SummariseText", text="a long text")}, "made by node 20 (SummariseText), which is unknown"),
        ({"n20": node("Text Random Line", text="a\nb", seed=4)}, "node 20 (Text Random Line)"),
        ({"n20": node("CR Text", text="a"), "n2": node("CLIPTextEncode", text=["20", 1])}, "output 1 of node 20"),
        ({"n20": node("StringReplace", string="a", find="b")}, "node 20 (StringReplace) has no input 'replace'"),
        ({"n20": node("CaseConverter", string="a", mode="Studly")}, "node 20 (CaseConverter): its mode is 'Studly'"),
        ({"n20": node("StringSubstring", string="a", start=0, end=1.5)}, "node 20 (StringSubstring): its end"),
        ({"n20": node("ImpactWildcardProcessor", populated_text="a {red|blue} hat")}, "node 20 (ImpactWildcard"),
        ({"n20": node("StringFormat", f_string="{a.__class__}", **{"values.a": "x"})}, "node 20 (StringFormat)"),
        ({"n20": node("RegexReplace", string="a" * 60 + "b", regex_pattern="(a|a)*$", replace="")}, "longer than 1 s"),
        ({"n20": node("StringReplace", string="a" * 99_999, find="", replace="b" * 9_999)}, "is longer than"),
        ({"n2": node("PromptWeaver", text="a hat", conditioning=["3", 0])}, "node 2 (PromptWeaver) is neither"),
        ({"n6": node("MegaDecode", samples=["4", 0], positive=["3", 0])}, "node 6 (MegaDecode) draws with"),
        ({"n4": node("TurboSampler", prompt="a hat", latent=["5", 0])}, "node 5 (EmptyLatentImage), which is unknown"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_the_node(changed, named):
    with pytest.raises(MetadataError) as error:
        prompt_of(graph(**changed))
    assert named in str(error.value)


def test_a_chain_that_doubles_its_text_ends():
    doubling = {f"n{30 + i}": node("StringConcatenate", string_a=[str(31 + i), 0], string_b=[str(31 + i), 0],
                                   delimiter="") for i in range(60)}  # fmt: skip
    doubling["n90"] = node("PrimitiveString", value="ab")
    with pytest.raises(MetadataError, match="is longer than 200000 characters"):
        prompt_of(graph(n20=node("Reroute", x=["30", 0]), **doubling))


def test_of_two_ways_to_a_picture_both_must_have_one_prompt():
    two = {
        "n6": node("ImageBlend", image1=["8", 0], image2=["9", 0]),
        "n8": node("VAEDecode", samples=["4", 0]),
        "n9": node("VAEDecode", samples=["10", 0]),
        "n20": node("PrimitiveString", value="a hat"),
        "n10": node("KSampler", positive=["11", 0], negative=["3", 0], latent_image=["5", 0]),
    }
    with pytest.raises(MetadataError, match="several prompts"):
        prompt_of(graph(**two, n11=node("CLIPTextEncode", text="a shoe")))
    assert prompt_of(graph(**two, n11=node("CLIPTextEncode", text="a hat"))).prompt == "a hat"


def test_of_an_average_with_a_weight_of_zero_or_one_a_single_text_is_left():
    for weight, text in ((1.0, "a hat"), (0.0, "a shoe"), (0.4, "a hat, a shoe")):
        average = node(
            "ConditioningAverage", conditioning_to=["8", 0], conditioning_from=["9", 0], conditioning_to_strength=weight
        )
        found = prompt_of(graph(
            n2=average, n8=node("CLIPTextEncode", text="a hat"), n9=node("CLIPTextEncode", text="a shoe")
        ))  # fmt: skip
        assert found.prompt == text


def socket(name: str, link: int | None = None, kind: str = "*", widget: bool = False) -> dict:
    return {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}


def canvas(encoder: dict, *more: dict, links: tuple = (), subgraphs: tuple = ()) -> str:
    """A canvas whose sampler reads link 1 as its positive conditioning."""
    nodes = [
        {"id": 4, "type": "KSampler", "inputs": [socket("positive", 1), socket("negative", 2)],
         "widgets_values": [1, "fixed", 9, 5, "euler", "normal", 1]},
        {"id": 3, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["haze"]},
        {"id": 6, "type": "VAEDecode", "inputs": [socket("samples", 3)]},
        {"id": 7, "type": "SaveImage", "inputs": [socket("images", 4)], "widgets_values": ["x"]},
        encoder, *more,
    ]  # fmt: skip
    wires = [[1, encoder["id"], 0, 4, 0, "CONDITIONING"], [2, 3, 0, 4, 1, "CONDITIONING"], [3, 4, 0, 6, 0, "LATENT"],
             [4, 6, 0, 7, 0, "IMAGE"], *links]  # fmt: skip
    return json.dumps({"nodes": nodes, "links": wires, "definitions": {"subgraphs": list(subgraphs)}})


def on_canvas(*args, **options) -> Any:
    return read_comfyui(None, canvas(*args, **options))


ENCODER = {"id": 2, "type": "CLIPTextEncode", "inputs": [socket("text", 10, "STRING")], "widgets_values": ["old"]}
REPLACE = {"id": 20, "type": "StringReplace", "inputs": [socket("string", 11, "STRING")],
           "outputs": [{"type": "STRING"}], "widgets_values": ["old", "hat", "cap"]}  # fmt: skip
STRING = {"id": 21, "type": "PrimitiveString", "inputs": [], "widgets_values": ["a hat"]}
WIRES = ([10, 20, 0, 2, 0, "STRING"], [11, 21, 0, 20, 0, "STRING"])


def test_a_canvas_computes_its_nodes_and_passes_bypassed_ones():
    assert on_canvas(ENCODER, REPLACE, STRING, links=WIRES).prompt == "a cap"
    assert on_canvas(ENCODER, {**REPLACE, "mode": 4}, STRING, links=WIRES).prompt == "a hat"


def test_a_canvas_gives_a_named_value_to_who_gets_it():
    setter = {"id": 20, "type": "SetNode", "inputs": [socket("STRING", 11)], "widgets_values": ["subject"]}
    getter = {"id": 22, "type": "GetNode", "inputs": [], "widgets_values": ["subject"]}
    wires = ([10, 22, 0, 2, 0, "STRING"], [11, 21, 0, 20, 0, "STRING"])
    assert on_canvas(ENCODER, setter, getter, STRING, links=wires).prompt == "a hat"


def subgraph(id_: str, inner: list[dict], links: list[dict], inputs: tuple = ("text",)) -> dict:
    return {
        "id": id_, "nodes": inner, "links": links, "inputs": [{"name": name} for name in inputs],
        "outputs": [{"name": "out"}], "inputNode": {"id": -10}, "outputNode": {"id": -20},
    }  # fmt: skip


def wire(id_: int, origin: int, slot: int, target: int, target_slot: int = 0) -> dict:
    return {"id": id_, "origin_id": origin, "origin_slot": slot, "target_id": target, "target_slot": target_slot}


INNER = {"id": 5, "type": "CLIPTextEncode", "inputs": [socket("text", 1, widget=True)], "widgets_values": ["inner"]}
SHEET = subgraph("aaaa", [INNER], [wire(1, -10, 0, 5), wire(2, 5, 0, -20)])


@pytest.mark.parametrize(
    ("instance", "text"),
    [
        ({"inputs": [socket("text", widget=True)], "widgets_values": ["outer"]}, "outer"),
        ({"inputs": [socket("text", 12)]}, "a hat"),
        ({"inputs": [socket("text", widget=True)], "widgets_values": []}, "inner"),
        ({"inputs": [], "properties": {"proxyWidgets": [["5", "text"]]}, "widgets_values": ["promoted"]}, "promoted"),
        ({"inputs": [socket("text", widget=True)], "properties": {"proxyWidgets": [["-1", "text"], ["5", "x"]]},
          "widgets_values": ["own", 3]}, "own"),
    ],
)  # fmt: skip
def test_a_subgraph_stands_for_its_nodes(instance, text):
    found = on_canvas({"id": 57, "type": "aaaa", **instance}, STRING, links=([12, 21, 0, 57, 0, "STRING"],),
                      subgraphs=(SHEET,))  # fmt: skip
    assert found.prompt == text


def test_subgraphs_within_subgraphs_hand_their_values_down():
    outer = subgraph("bbbb", [{"id": 8, "type": "aaaa", "inputs": [socket("text", 1, widget=True)],
                               "widgets_values": ["middle"]}],
                     [wire(1, -10, 0, 8), wire(2, 8, 0, -20)])  # fmt: skip
    instance = {"id": 57, "type": "bbbb", "inputs": [socket("text", widget=True)], "widgets_values": ["top"]}
    assert on_canvas(instance, subgraphs=(SHEET, outer)).prompt == "top"
    assert on_canvas({**instance, "widgets_values": []}, subgraphs=(SHEET, outer)).prompt == "middle"


def test_values_of_a_subgraph_that_cannot_be_told_apart_are_not_guessed():
    instance = {"id": 57, "type": "aaaa", "inputs": [socket("text", widget=True)], "widgets_values": ["one", "two"]}
    with pytest.raises(MetadataError, match=r"node 57:5 \(CLIPTextEncode\) has UnnamedValue where its text"):
        on_canvas(instance, subgraphs=(SHEET,))


@pytest.mark.parametrize("deepest", [[], [INNER]])
def test_subgraphs_that_stand_for_billions_of_nodes_are_refused(deepest):
    sheets = [subgraph(f"s{level}", [{"id": place, "type": f"s{level + 1}", "inputs": []} for place in range(9)], [])
              for level in range(15)]  # fmt: skip
    sheets.append(subgraph("s15", deepest, []))
    with pytest.raises(MetadataError, match="more than"):
        on_canvas({"id": 57, "type": "s0", "inputs": []}, subgraphs=tuple(sheets))
    itself = subgraph("s0", [{"id": 1, "type": "s0", "inputs": []}], [])
    with pytest.raises(MetadataError, match="nests more than"):
        on_canvas({"id": 57, "type": "s0", "inputs": []}, subgraphs=(itself,))


def test_of_choices_that_a_canvas_leaves_open_none_is_taken():
    encoder = {"id": 2, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["a {red|blue} hat"]}
    with pytest.raises(MetadataError, match="only the canvas was saved"):
        on_canvas(encoder)
    assert on_canvas({**encoder, "widgets_values": [r"a \{red|blue\} hat"]}).prompt == r"a \{red|blue\} hat"


def test_any_bytes_in_a_graph_end_in_metadata_or_in_their_own_error():
    for chunk in ("[]", "{", "{}", '{"1": 2}', '{"nodes": 3, "links": []}', '{"nodes": [{"id": [1]}], "links": [[]]}'):
        for chunks in ((chunk, None), (None, chunk)):
            try:
                assert read_comfyui(*chunks) is None
            except MetadataError as error:
                assert str(error)
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", json.dumps(graph(n20=node("PrimitiveString", value="a hat"))))
    saved = io.BytesIO()
    Image.new("RGB", (8, 8)).save(saved, "PNG", pnginfo=info)
    texts = Image.open(io.BytesIO(saved.getvalue())).info
    assert prompt_of(json.loads(texts["prompt"])).prompt == "a hat"
