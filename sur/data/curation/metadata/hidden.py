"""Texts that tools hide in a picture's pixels: one bit in the alpha channel, or in each colour, of every pixel.

The bits go down the columns, first to last: a signature, the number of the text's bits in 32 bits, and the text in
UTF-8, packed by gzip where the signature says so. See "stealth pnginfo" of AUTOMATIC1111's extensions, and NovelAI.
"""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

SIGNATURES = {  # the channels that hold the bits, and whether the text is packed
    b"stealth_pnginfo": ("A", False),
    b"stealth_pngcomp": ("A", True),
    b"stealth_rgbinfo": ("RGB", False),
    b"stealth_rgbcomp": ("RGB", True),
}
SIGNATURE_BYTES = 15
_LENGTH_BYTES = 4
_GZIP = 16 + zlib.MAX_WBITS


def hidden_text(image: Image.Image, most_characters: int) -> str | None:
    """The text in a loaded picture's pixels; None where there is none, or none that is whole."""
    for channels in ("A", "RGB"):
        if image.mode not in ("RGBA", "RGB") or any(channel not in image.mode for channel in channels):
            continue
        head = _bytes(image, channels, SIGNATURE_BYTES + _LENGTH_BYTES)
        if SIGNATURES.get(head[:SIGNATURE_BYTES], ("", False))[0] != channels:
            continue
        length = int.from_bytes(head[SIGNATURE_BYTES:], "big") // 8
        if not 0 < length <= 4 * most_characters:
            continue
        body = _bytes(image, channels, len(head) + length)[len(head) :]
        if len(body) < length:
            continue
        try:
            if SIGNATURES[head[:SIGNATURE_BYTES]][1]:
                unpacking = zlib.decompressobj(_GZIP)
                body = unpacking.decompress(body, 4 * most_characters)
                if not unpacking.eof:  # cut, or longer than any prompt
                    continue
            return body.decode("utf-8")
        except (zlib.error, UnicodeDecodeError):
            continue
    return None


def _bytes(image: Image.Image, channels: str, count: int) -> bytes:
    """The first `count` bytes of the bits in some channels, or fewer where the picture ends."""
    columns = -(-8 * count // (len(channels) * max(1, image.height)))
    part = image.crop((0, 0, min(columns, image.width), image.height))
    values = np.stack([np.asarray(part.getchannel(channel)) for channel in channels], axis=-1)
    bits = values.transpose(1, 0, 2).reshape(-1)[: 8 * count] & 1
    return np.packbits(bits[: bits.size // 8 * 8]).tobytes()
