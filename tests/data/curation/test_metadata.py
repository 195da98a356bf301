"""Prompts from the metadata of generated pictures, in files with the real chunks that the tools write."""

import gzip
import io
import json
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from sur.data.curation.metadata.a1111 import read_a1111, read_settings
from sur.data.curation.metadata.generator_metadata import MetadataError, texts_in_picture
from sur.data.curation.metadata.hidden import hidden_text
from sur.data.curation.metadata.read import read_generator_metadata
from sur.support.images import open_checked

INFOTEXT = """portrait of an (old fisherman:1.2), harbour at dawn,
foggy <lora:film:0.6>
Negative prompt: lowres, (bad hands:1.3),
watermark
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 3391774, Size: 512x768, Model hash: 6ce0161689, \
Model: v1-5-pruned, Denoising strength: 0.55, Lora hashes: "film: 1f2e, other: 3d4c", Version: v1.10.1"""


def saved(kind: str, **options) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (32, 32), "teal").save(made, kind, **options)
    return made.getvalue()


def png(international: bool = False, **texts: str) -> bytes:
    """A PNG with tEXt chunks, or iTXt where that is asked for."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        (info.add_itxt if international else info.add_text)(name, text)
    return saved("PNG", pnginfo=info)


def with_comment(kind: str, comment: bytes) -> bytes:
    """A picture with an EXIF UserComment."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    return saved(kind, exif=exif.tobytes())


def read(data: bytes) -> Any:
    """Metadata of the generator that made a picture, None without any; Any, so that tests need not ask which."""
    image = open_checked(data, 10**6)
    image.load()
    return read_generator_metadata(texts_in_picture(image))


def check_infotext(found):
    assert (found.tool, found.dialect) == ("a1111", "a1111")
    assert found.prompt == "portrait of an (old fisherman:1.2), harbour at dawn,\nfoggy <lora:film:0.6>"
    assert found.negative == "lowres, (bad hands:1.3),\nwatermark"
    assert found.fields["Steps"] == "28"
    assert found.fields["Sampler"] == "DPM++ 2M Karras"
    assert found.fields["Lora hashes"] == "film: 1f2e, other: 3d4c"
    assert found.fields["Version"] == "v1.10.1"
    assert len(found.fields) == 10


@pytest.mark.parametrize(
    "data",
    [
        png(parameters=INFOTEXT),
        png(international=True, parameters=INFOTEXT),
        with_comment("JPEG", b"UNICODE\0" + INFOTEXT.encode("utf-16-be")),
        with_comment("JPEG", b"UNICODE\0" + INFOTEXT.encode("utf-16-le")),
        with_comment("WEBP", b"UNICODE\0" + INFOTEXT.encode("utf-16-be")),
        with_comment("JPEG", b"ASCII\0\0\0" + INFOTEXT.encode()),
    ],
    ids=["tEXt", "iTXt", "jpeg", "jpeg, little-endian", "webp", "jpeg, ascii"],
)
def test_a1111_parameters_are_read_from_every_kind_of_file(data):
    check_infotext(read(data))


def test_a_prompt_in_any_script_survives_both_kinds_of_chunk():
    text = "猫、海の前で, “naïve” — ok\nSteps: 20, Sampler: Euler a, CFG scale: 7"
    for data in (
        png(international=True, parameters=text),
        with_comment("JPEG", b"UNICODE\0" + text.encode("utf-16-be")),
    ):
        assert read(data).prompt == "猫、海の前で, “naïve” — ok"


FLAT = "an inn, (dusk:1.1){0}Negative prompt: haze, rain{0}Steps: 31, Sampler: Heun, CFG scale: 4, Size: 8x8"


@pytest.mark.parametrize("joint", [" ", ".", ",.", ", "])
def test_a1111_in_one_line_is_taken_apart(joint):
    found: Any = read_a1111(FLAT.format(joint))
    assert (found.prompt.rstrip(","), found.negative.rstrip(",")) == ("an inn, (dusk:1.1)", "haze, rain")
    assert (found.fields["Steps"], found.fields["Sampler"], len(found.fields)) == ("31", "Heun", 4)
    alone: Any = read_a1111("an inn Steps: 31, Sampler: Heun, CFG scale: 4")
    assert (alone.prompt, alone.negative) == ("an inn", "")


def test_words_that_look_like_settings_stay_in_the_prompt():
    found: Any = read_a1111("Steps: 3, two dancers\nstyle: ink, mood: calm, Steps: 9, Sampler: Heun, CFG scale: 4")
    assert found.prompt == "Steps: 3, two dancers\nstyle: ink, mood: calm,"
    vlad: Any = read_a1111("an inn\nVersion: 1f, Pipeline: Original, Steps: 25, Seed: 7, Sampler: Heun")
    assert (vlad.prompt, vlad.fields["Pipeline"]) == ("an inn", "Original")


def test_prompts_without_settings_are_read_where_they_are_known_to_be_prompts():
    both = "an inn at dusk\nNegative prompt: haze"
    for data in (png(parameters=both), with_comment("JPEG", b"ASCII\0\0\0" + both.encode())):
        assert (read(data).prompt, read(data).negative) == ("an inn at dusk", "haze")
    assert read(png(parameters="an inn at dusk")).prompt == "an inn at dusk"
    assert read(with_comment("JPEG", b"ASCII\0\0\0an inn where we slept")) is None
    assert read(png(parameters='{"other": "tool"}')) is None


def exif_three(order: str, text: bytes, kind: int = 129) -> bytes:
    """EXIF data with a UserComment of any type, UTF-8 (129) for one."""
    little = order == "little"
    number = lambda value, size: value.to_bytes(size, "little" if little else "big")  # noqa: E731
    head = (b"II" if little else b"MM") + number(42, 2) + number(8, 4)
    top = number(1, 2) + number(0x8769, 2) + number(4, 2) + number(1, 4) + number(26, 4) + number(0, 4)
    inner = number(1, 2) + number(0x9286, 2) + number(kind, 2) + number(len(text), 4) + number(44, 4) + number(0, 4)
    return b"Exif\0\0" + head + top + inner + text


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("charset", [b"", b"UTF-8\0\0\0", b"UNICODE\0", b"ASCII\0\0\0", b"\0" * 8])
@pytest.mark.parametrize("kind", [129, 7])
def test_a_comment_in_utf_8_is_read_whatever_its_type_and_label(order, charset, kind):
    text = "ein Gäßchen, 雨\nNegative prompt: fog\nSteps: 20, Sampler: Euler a, CFG scale: 7"
    found = read(saved("JPEG", exif=exif_three(order, charset + text.encode(), kind)))
    assert (found.prompt, found.negative) == ("ein Gäßchen, 雨", "fog")


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_cut_exif_data_give_no_prompt_and_no_other_error(cut):
    exif = exif_three("big", b"an inn")[:cut] or b"Exif\0\0"
    try:
        assert read(saved("WEBP", exif=exif)) is None
    except MetadataError as error:
        assert "EXIF data are damaged" in str(error)
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", INFOTEXT)
    check_infotext(read(saved("PNG", exif=exif, pnginfo=info)))


def test_a1111_without_negative_prompt_and_with_lines_of_extensions():
    found: Any = read_a1111(
        "a dog\nSteps: 20, Sampler: Euler a, CFG scale: 7\nTemplate: a __animal__\nNegative Template: x"
    )
    assert (found.prompt, found.negative) == ("a dog", "")
    assert found.fields["(lines after the settings)"] == "Template: a __animal__\nNegative Template: x"


def test_a1111_with_a_negative_prompt_alone():
    found: Any = read_a1111("Negative prompt: bad\nSteps: 20, Sampler: Euler a, CFG scale: 7")
    assert (found.prompt, found.negative) == ("", "bad")


@pytest.mark.parametrize("text", ["a prompt of words alone", "", "size: big, a cat", "just\nlines\nof text"])
def test_a_text_without_settings_is_not_taken_for_a1111(text):
    assert read_a1111(text) is None


def test_settings_with_quotes_commas_and_colons_keep_their_values():
    found = read_settings(r'A: 1, B: "x, y: \"z\"", Hires prompt: "a (b:1.1), c", Last: end of it')
    assert found == {"A": "1", "B": 'x, y: "z"', "Hires prompt": "a (b:1.1), c", "Last": "end of it"}


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


BASE = {
    "3": node("KSampler", seed=8566257, steps=20, cfg=8, sampler_name="euler", scheduler="normal", denoise=1,
              model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0]),
    "4": node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
    "5": node("EmptyLatentImage", width=512, height=512, batch_size=1),
    "6": node("CLIPTextEncode", text="a glass bottle, galaxy inside", clip=["4", 1]),
    "7": node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
}  # fmt: skip


def comfy(**changed) -> dict:
    return {**BASE, **changed}


def follow(graph: dict):
    return read(png(prompt=json.dumps(graph), workflow=json.dumps({"nodes": [], "links": []})))


def test_comfyui_is_followed_from_the_sampler_to_its_text_encoders():
    found = follow(BASE)
    assert (found.tool, found.prompt, found.negative) == (
        "comfyui", "a glass bottle, galaxy inside", "text, watermark"
    )  # fmt: skip
    assert found.fields == {
        "sampler node": "3 (KSampler)", "seed": 8566257, "steps": 20, "cfg": 8, "sampler_name": "euler",
        "scheduler": "normal", "denoise": 1, "ckpt_name": ["sd15.safetensors"],
    }  # fmt: skip


def test_comfyui_goes_through_controlnets_combinations_and_guidance():
    sampler = node("KSamplerAdvanced", noise_seed=1, positive=["20", 0], negative=["20", 1], latent_image=["5", 0])
    apply = node(
        "ControlNetApplyAdvanced", positive=["21", 0], negative=["7", 0], control_net=["30", 0], image=["31", 0]
    )
    combine = node("ConditioningCombine", conditioning_1=["22", 0], conditioning_2=["6", 0])
    guidance = node("FluxGuidance", guidance=3.5, conditioning=["23", 0])
    found = follow(
        comfy(**{"3": sampler, "20": apply, "21": combine, "22": guidance,
                 "23": node("CLIPTextEncode", text="first", clip=["4", 1]),
                 "30": node("ControlNetLoader", control_net_name="canny"), "31": node("LoadImage", image="x.png")})
    )  # fmt: skip
    assert found.prompt == "first, a glass bottle, galaxy inside"
    assert found.negative == "text, watermark"


def test_comfyui_custom_sampler_with_a_guider_and_no_negative():
    found = follow({
        "1": node("RandomNoise", noise_seed=77),
        "2": node("CLIPTextEncodeFlux", clip_l="bottle", t5xxl="a bottle on a beach", guidance=3.5, clip=["9", 0]),
        "3": node("BasicGuider", model=["9", 0], conditioning=["2", 0]),
        "4": node("SamplerCustomAdvanced", noise=["1", 0], guider=["3", 0], sampler=["5", 0], latent_image=["6", 0]),
        "5": node("KSamplerSelect", sampler_name="euler"),
        "6": node("EmptySD3LatentImage", width=8, height=8),
        "7": node("VAEDecode", samples=["4", 0]),
        "8": node("SaveImage", images=["7", 0]),
        "9": node("DualCLIPLoader"),
    })  # fmt: skip
    assert (found.prompt, found.negative) == ("a bottle on a beach", "")
    assert found.fields["noise_seed"] == 77


def test_comfyui_sdxl_encoders_give_both_of_their_texts_once():
    both = node("CLIPTextEncodeSDXL", width=1024, text_g="a fox", text_l="oil painting", clip=["4", 1])
    same = node("CLIPTextEncodeSDXL", width=1024, text_g="blurry", text_l="blurry", clip=["4", 1])
    found = follow(comfy(**{"6": both, "7": same}))
    assert (found.prompt, found.negative) == ("a fox, oil painting", "blurry")


def test_comfyui_texts_that_other_nodes_make():
    found = follow(comfy(**{
        "6": node("CLIPTextEncode", text=["40", 0], clip=["4", 1]),
        "40": node("StringConcatenate", string_a=["41", 0], string_b="at night", delimiter=", "),
        "41": node("Reroute", value_in=["42", 0]),
        "42": node("ImpactWildcardProcessor", wildcard_text="a __animal__", populated_text="a heron", mode="populate"),
    }))  # fmt: skip
    assert found.prompt == "a heron, at night"


def test_comfyui_zeroed_negatives_are_nothing():
    zero = node("ConditioningZeroOut", conditioning=["6", 0])
    assert follow(comfy(**{"7": zero})).negative == ""


def test_comfyui_second_pass_takes_the_sampler_nearest_the_picture():
    second = node(
        "KSampler", seed=2, steps=9, positive=["12", 0], negative=["7", 0], latent_image=["3", 0], model=["4", 0]
    )
    found = follow(comfy(**{
        "10": second, "12": node("CLIPTextEncode", text="with details", clip=["4", 1]),
        "8": node("VAEDecode", samples=["10", 0], vae=["4", 2]),
    }))  # fmt: skip
    assert (found.prompt, found.fields["steps"]) == ("with details", 9)


def test_a_picture_that_comfyui_only_processed_has_no_prompt():
    graph = {"1": node("LoadImage", image="x.png"), "2": node("SaveImage", images=["1", 0], filename_prefix="up")}
    assert follow(graph) is None


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (comfy(**{"6": node("MagicPrompt", seed=1)}), "node 6 (MagicPrompt) is neither a text encoder"),
        (comfy(**{"6": node("CLIPTextEncode", text=["50", 0]), "50": node("Oracle")}), "made by node 50 (Oracle)"),
        (comfy(**{"6": node("CLIPTextEncode", text=["99", 0])}), "reads node 99, which the graph does not have"),
        (comfy(**{"6": node("CLIPTextEncode", text=["6", 0])}), "comes from itself"),
        ({"1": "no node"}, "is no node with inputs"),
        ([1], "expected an object"),
    ],
)  # fmt: skip
def test_a_comfyui_graph_that_cannot_be_followed_is_refused_by_the_node(graph, said):
    with pytest.raises(MetadataError) as error:
        read(png(prompt=json.dumps(graph)))
    assert said in str(error.value)


def test_a_comfyui_graph_of_two_prompts_is_not_guessed_at():
    graph = comfy(**{
        "20": node("KSampler", positive=["21", 0], negative=["7", 0], latent_image=["5", 0]),
        "21": node("CLIPTextEncode", text="another", clip=["4", 1]),
        "22": node("VAEDecode", samples=["20", 0]), "23": node("SaveImage", images=["22", 0]),
    })  # fmt: skip
    with pytest.raises(MetadataError, match="several prompts, by samplers 3 .KSampler., 20"):
        follow(graph)


def test_a_loop_of_conditionings_ends():
    graph = comfy(**{"6": node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["7", 0])})
    assert follow(graph).prompt == "text, watermark"


def canvas(mode: int = 0) -> dict:
    """The default graph as the canvas saves it, with a reroute."""
    return {
        "nodes": [
            {"id": 3, "type": "KSampler", "mode": 0, "inputs": [
                {"name": "model", "link": 1}, {"name": "positive", "link": 14}, {"name": "negative", "link": 6},
                {"name": "latent_image", "link": 2}], "widgets_values": [42, "randomize", 20, 8, "euler", "normal", 1]},
            {"id": 6, "type": "CLIPTextEncode", "mode": mode, "inputs": [{"name": "clip", "link": 3}],
             "widgets_values": ["a lighthouse"]},
            {"id": 7, "type": "CLIPTextEncode", "mode": 0, "inputs": [{"name": "clip", "link": 5}],
             "widgets_values": ["blurry"]},
            {"id": 8, "type": "VAEDecode", "mode": 0, "inputs": [{"name": "samples", "link": 7}]},
            {"id": 9, "type": "SaveImage", "mode": 0, "inputs": [{"name": "images", "link": 9}],
             "widgets_values": ["ComfyUI"]},
            {"id": 10, "type": "Reroute", "mode": 0, "inputs": [{"name": "", "link": 4}]},
        ],
        "links": [[4, 6, 0, 10, 0, "*"], [14, 10, 0, 3, 1, "CONDITIONING"], [6, 7, 0, 3, 2, "CONDITIONING"],
                  [2, 99, 0, 3, 3, "LATENT"], [7, 3, 0, 8, 0, "LATENT"], [9, 8, 0, 9, 0, "IMAGE"]],
    }  # fmt: skip


def test_comfyui_canvas_alone_is_enough():
    found = read(png(workflow=json.dumps(canvas())))
    assert (found.prompt, found.negative) == ("a lighthouse", "blurry")
    assert (found.fields["seed"], found.fields["steps"]) == (42, 20)


def test_a_muted_node_of_the_canvas_is_missed_by_name():
    with pytest.raises(MetadataError, match="reads node 6"):
        read(png(workflow=json.dumps(canvas(mode=2))))


def test_comfyui_webp_has_its_graph_in_exif():
    exif = Image.Exif()
    exif[0x0110] = "prompt:" + json.dumps(BASE)
    exif[0x010F] = "workflow:" + json.dumps(canvas())
    assert read(saved("WEBP", exif=exif.tobytes())).prompt == "a glass bottle, galaxy inside"


def test_invokeai_new_and_old():
    new = {"positive_prompt": "a (fox)1.2", "negative_prompt": "fog", "seed": 5, "steps": 30}
    found = read(png(invokeai_metadata=json.dumps(new)))
    assert (found.tool, found.dialect, found.prompt, found.negative) == ("invokeai", "invokeai", "a (fox)1.2", "fog")
    assert found.fields == {"seed": 5, "steps": 30}
    old = {"app_id": "invoke-ai/InvokeAI", "image": {"prompt": [{"prompt": "a fox", "weight": 1}], "steps": 50}}
    chunks: dict[str, Any] = {"sd-metadata": json.dumps(old)}
    assert read(png(**chunks)).prompt == "a fox"


def test_swarmui_and_fooocus_write_json_into_parameters():
    swarm = {"sui_image_params": {"prompt": "a fox", "negativeprompt": "fog", "steps": 20}}
    fooocus = {"prompt": "a fox", "negative_prompt": "fog", "steps": 30, "version": "Fooocus v2.5"}
    for tool, fields in (("swarmui", swarm), ("fooocus", fooocus)):
        found = read(png(parameters=json.dumps(fields)))
        assert (found.tool, found.prompt, found.negative) == (tool, "a fox", "fog")


@pytest.mark.parametrize("data", [png(), png(Software="GIMP", Comment="a holiday"), saved("JPEG"), saved("WEBP")])
def test_a_plain_picture_has_no_prompt(data):
    assert read(data) is None


def hide(text: str, signature: str, channels: str, packed: bool, mode: str = "RGBA") -> bytes:
    """A PNG with a text in the last bits of its pixels, written pixel by pixel."""
    body = gzip.compress(text.encode()) if packed else text.encode()
    bits = "".join(f"{byte:08b}" for byte in signature.encode() + (8 * len(body)).to_bytes(4, "big") + body)
    image = Image.new(mode, (61, 67), (200, 100, 50, 255)[: len(mode)])
    places = [(x, y, mode.index(c)) for x in range(61) for y in range(67) for c in channels]
    for (x, y, channel), bit in zip(places, bits, strict=False):
        pixel: Any = list(image.getpixel((x, y)))  # pyright: ignore[reportArgumentType]
        pixel[channel] = pixel[channel] & ~1 | int(bit)
        image.putpixel((x, y), tuple(pixel))
    made = io.BytesIO()
    image.save(made, "PNG")
    return made.getvalue()


@pytest.mark.parametrize(
    ("signature", "channels", "packed", "mode"),
    [("stealth_pnginfo", "A", False, "RGBA"), ("stealth_pngcomp", "A", True, "RGBA"),
     ("stealth_rgbinfo", "RGB", False, "RGB"), ("stealth_rgbcomp", "RGB", True, "RGBA")],
)  # fmt: skip
def test_parameters_hidden_in_the_pixels_are_read(signature, channels, packed, mode):
    check_infotext(read(hide(INFOTEXT, signature, channels, packed, mode)))


def test_pixels_that_hide_nothing_whole_give_no_prompt():
    for text, packed in (("x" * 9000, False), ("not gzip", False)):
        assert read(hide(text, "stealth_pngcomp", "A", packed)) is None
    long = Image.open(io.BytesIO(hide("x" * 90_000, "stealth_pngcomp", "A", True)))
    assert hidden_text(long, 90_000) == "x" * 90_000 and hidden_text(long, 20_000) is None


NOVELAI = {
    "Software": "NovelAI", "Source": "NovelAI Diffusion V4 79F47848", "Description": "an inn",
    "Comment": json.dumps({
        "prompt": "an inn, 1.5::rain, night::", "uc": "lowres", "steps": 28, "scale": 5,
        "v4_prompt": {"caption": {"base_caption": "an inn, 1.5::rain, night::",
                                  "char_captions": [{"char_caption": "girl, red hat"}]}},
    }),
}  # fmt: skip


def test_novelai_is_read_from_texts_exif_and_pixels():
    chunks: dict[str, Any] = NOVELAI
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + json.dumps(NOVELAI).encode()
    for data in (
        png(**chunks),
        saved("WEBP", exif=exif.tobytes()),
        hide(json.dumps(NOVELAI), "stealth_pngcomp", "A", True),
        hide(json.dumps({**NOVELAI, "Comment": json.loads(NOVELAI["Comment"])}), "stealth_pngcomp", "A", True),
    ):
        found = read(data)
        assert (found.tool, found.prompt, found.negative, found.fields["steps"]) == (
            "novelai", "an inn, (rain, night:1.5), girl, red hat", "lowres", 28
        )  # fmt: skip
    old: dict[str, Any] = {"Software": "NovelAI", "Description": "{an inn}", "Comment": '{"steps": 5, "uc": "fog"}'}
    assert (read(png(**old)).prompt, read(png(**old)).negative) == ("{an inn}", "fog")
    with pytest.raises(MetadataError, match="NovelAI"):
        read(png(Software="NovelAI", Description="an inn", Comment="none"))


def xmp(body: str, attributes: str = "") -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
        f' xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description {attributes}>{body}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def test_prompts_in_xmp_are_read_from_every_kind_of_file():
    text = INFOTEXT.replace("<", "&lt;").replace(">", "&gt;")
    comment = f'<exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></exif:UserComment>'
    description = f"<dc:description>{text}</dc:description>"
    attribute = 'exif:UserComment="' + text.replace('"', "&quot;").replace("\n", "&#10;") + '"'
    for packet in (xmp(comment), xmp(description), xmp("", attribute)):
        check_infotext(read(saved("JPEG", xmp=packet)))
        check_infotext(read(saved("WEBP", xmp=packet)))
        keyword: dict[str, Any] = {"XML:com.adobe.xmp": packet.decode()}
        check_infotext(read(png(international=True, **keyword)))
    things = json.dumps({"c": "an inn", "uc": "fog", "sampler": "Euler", "steps": 9, "seed": 4})
    found = read(saved("JPEG", xmp=xmp(f"<exif:UserComment>{things}</exif:UserComment>")))
    assert (found.tool, found.prompt, found.negative) == ("drawthings", "an inn", "fog")


@pytest.mark.parametrize(
    "packet",
    [
        b"<x", b"", b"no xml", xmp("<dc:description>a holiday in Rome</dc:description>"),
        b'<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>' + xmp("<dc:description>&c;</dc:description>"),
    ],
)  # fmt: skip
def test_an_xmp_packet_without_a_prompt_gives_none(packet):
    assert read(saved("JPEG", xmp=packet)) is None
