"""The texts in a picture's file (PNG text chunks, EXIF), and the metadata that a generator left in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from sur.config.curation import Dialect

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
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
    """Texts in a picture's file by name: PNG keywords, and "UserComment", "prompt", "workflow" from EXIF.

    The picture must be loaded: PNG text chunks may come after the pixels.
    """
    texts = {str(name): value for name, value in image.info.items() if isinstance(value, str)}
    exif = image.getexif()
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if isinstance(comment, (bytes, str)):
        texts.setdefault("UserComment", comment if isinstance(comment, str) else _user_comment(comment))
    for tag in _COMFYUI_TAGS:
        name, colon, value = str(exif.get(tag, "")).partition(":")
        if colon and name.strip().lower() in ("prompt", "workflow"):
            texts.setdefault(name.strip().lower(), value.strip("\0 "))
    return {name: value for name, value in texts.items() if 0 < len(value) <= LONGEST_TEXT}


def _user_comment(comment: bytes) -> str:
    """EXIF's UserComment as text: its first eight bytes name the character set."""
    charset, body = comment[:_CHARSET_BYTES].rstrip(b"\0 ").upper(), comment[_CHARSET_BYTES:]
    if charset == b"UNICODE":
        return _utf16(body).strip("\0")
    if charset in (b"ASCII", b"JIS", b""):
        return body.decode("utf-8", "replace").strip("\0")
    return comment.decode("utf-8", "replace").strip("\0")  # no character set at all, as some tools write it


def _utf16(body: bytes) -> str:
    """UTF-16 of either order: by its mark, else by where the zero bytes of Latin letters are (tools write both)."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", "replace")
    little = body[1::2].count(0) > body[0::2].count(0)
    return body.decode("utf-16-le" if little else "utf-16-be", "replace")
