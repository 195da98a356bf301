"""The texts in a picture's file (PNG text chunks, EXIF, XMP, pixels), and the metadata that a generator left there."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

from sur.config.curation import Dialect
from sur.data.curation.metadata.hidden import hidden_text
from sur.data.curation.metadata.xmp import xmp_texts

_EXIF_HEAD = b"Exif\0\0"
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_UTF8, _UNDEFINED = 129, 7  # types of EXIF fields
_COMFYUI_TAGS = (0x010F, 0x0110, 0x010E)  # Make, Model, ImageDescription: "workflow:{...}" and "prompt:{...}" in WebP
_CHARSET_BYTES = 8  # EXIF: the name of the character set, in front of a user comment
LONGEST_TEXT = 4_000_000  # characters; ComfyUI's graphs are long, but not that long


class MetadataError(ValueError):
    """A picture has the metadata of a generator, but no prompt can be read from them."""


@dataclass(frozen=True)
class GeneratorMetadata:
    """The metadata that a generator wrote into a picture: the prompts as written, and the settings used."""

    tool: str
    dialect: Dialect
    prompt: str
    negative: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def texts_in_picture(image: Image.Image) -> dict[str, str]:
    """Texts in a picture's file by name: PNG keywords; "UserComment", "prompt", "workflow" from EXIF and XMP; and those
    that are hidden in its pixels, which name themselves, or are "parameters".

    The picture must be loaded: PNG text chunks may come after the pixels.
    Raises: MetadataError when the EXIF data are damaged, and the file has no other text.
    """
    texts = {str(name): value for name, value in image.info.items() if isinstance(value, str)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Pillow for damaged EXIF data; what is whole is read
        try:
            for name, text in _exif_texts(image):
                texts.setdefault(name, text)
        except (OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
            if not texts:
                raise MetadataError(f"its EXIF data are damaged ({error})") from error
    for name, text in (*xmp_texts(image), *_hidden_texts(image)):
        texts.setdefault(name, text)
    return {name: value for name, value in texts.items() if 0 < len(value) <= LONGEST_TEXT}


def _hidden_texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    """The texts in a picture's pixels: A1111's parameters, or an object of texts by name, as NovelAI writes it."""
    text = hidden_text(image, LONGEST_TEXT)
    if text is None:
        return
    try:
        fields = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        yield from ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in fields.items())
    else:
        yield "parameters", text


def _exif_texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    """The texts in a picture's EXIF data, by name."""
    exif = _exif(image)
    for comment in (exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT), exif.get(_USER_COMMENT)):  # some write it at the top
        if isinstance(comment, (bytes, str)) and comment:
            yield "UserComment", comment if isinstance(comment, str) else _user_comment(comment)
    for tag in _COMFYUI_TAGS:
        value = exif.get(tag, "")
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        name, colon, graph = text.partition(":")
        if colon and name.strip().lower() in ("prompt", "workflow"):
            yield name.strip().lower(), graph.strip("\0 ")


def _exif(image: Image.Image) -> Image.Exif:
    """A picture's EXIF data; UTF-8, the type of texts that Exif 3 added and Pillow does not know, comes as bytes."""
    data = image.info.get("exif")
    if not isinstance(data, bytes):
        return image.getexif()
    exif = Image.Exif()
    exif.load(_with_utf8_as_bytes(data))
    return exif


def _with_utf8_as_bytes(data: bytes) -> bytes:
    """EXIF data in which the fields of type UTF-8 are of type UNDEFINED."""
    changed = bytearray(data)
    start = len(_EXIF_HEAD) if data.startswith(_EXIF_HEAD) else 0
    order: Literal["little", "big"] = "little" if data[start : start + 2] == b"II" else "big"

    def number(place: int, size: int) -> int:
        return int.from_bytes(data[place : place + size], order)

    waiting, seen = [number(start + 4, 4)], set()
    while waiting:
        directory = start + waiting.pop()
        if directory in seen or directory + 2 > len(data):
            continue
        seen.add(directory)
        for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(data) - 11), 12):
            if number(entry, 2) == _EXIF_IFD:
                waiting.append(number(entry + 8, 4))
            if number(entry + 2, 2) == _UTF8:
                changed[entry + 2 : entry + 4] = _UNDEFINED.to_bytes(2, order)
    return bytes(changed)


def _user_comment(comment: bytes) -> str:
    """EXIF's UserComment as text: its first eight bytes name the character set, in most files rightly."""
    charset, body = comment[:_CHARSET_BYTES].rstrip(b"\0 ").upper(), comment[_CHARSET_BYTES:]
    if charset == b"UNICODE":
        return _unicode(body).strip("\0")
    if charset in (b"ASCII", b"JIS", b"UTF-8", b"UTF8", b""):
        return body.decode("utf-8", "replace").strip("\0")
    return comment.decode("utf-8", "replace").strip("\0")  # no character set at all, as some tools write it


def _unicode(body: bytes) -> str:
    """UTF-16 of either order: by its mark, else by where the zero bytes of Latin letters are (tools write both).

    Some tools write UTF-8 there, which has no zero bytes, while settings in UTF-16 have many.
    """
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "replace")
    if b"\0" not in body.rstrip(b"\0"):
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    little = body[1::2].count(0) > body[0::2].count(0)
    return body.decode("utf-16-le" if little else "utf-16-be", "replace")
