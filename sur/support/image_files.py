"""The bytes of image files: damage that decoders forgive, and texts that they refuse."""

from __future__ import annotations

import io
import re

from PIL import Image, ImageChops

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # behind a JPEG scan's data
FRAMES, SCAN, END = (0xC0, 0xC1, 0xC2), 0xDA, 0xD9  # markers of a JPEG
ZEROS = 256  # at the end of a file: space that a broken-off download did not fill
# Any bytes but 0xFF, the mark of a marker: a decoder that has all its data does not look at them.
GARBAGE = bytes(range(1, 255)) * 4
GREY = (127, 128)  # of a decoder that has no data; 127 where colours are inverted


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts and colour profile, other files as they are; the pixels are the same."""
    if not data.startswith(PNG_SIGNATURE):
        return data
    kept, place = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] not in PNG_TEXTS:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def forgiven_fault(image: Image.Image, data: bytes) -> str:
    """Why a decoded image is not whole although its decoder raised nothing; "" for a whole image.

    JPEG decoders fill what is missing with grey, or leave a progressive image coarse. Of a progressive image, a cut
    within its last scan is not found.
    """
    if image.format in ("JPEG", "MPO", "WEBP"):
        content = data.rstrip(b"\0")
        filled = len(data) - len(content) >= ZEROS
        if filled and not (image.format != "WEBP" and content.endswith(b"\xff\xd9")):
            return f"it ends with {len(data) - len(content)} zero bytes, as a broken-off download does"
    if image.format not in ("JPEG", "MPO"):
        return ""
    try:
        end, lacking = _scans(data)
    except (IndexError, KeyError, ValueError):
        return "the marks of its scans are not in order"
    if lacking:
        return f"{lacking} of its colour components lack a scan"
    if _ends_grey(image) and not _same_with_garbage(image, data, end):
        return "its data ends before its pixels do"
    return ""


def _ends_grey(image: Image.Image) -> bool:
    """Whether the last pixel is of the grey that stands for missing data, as in every picture that was cut."""
    last = image.getpixel((image.width - 1, image.height - 1))
    return all(value in GREY for value in (last if isinstance(last, tuple) else (last,)))


def _same_with_garbage(image: Image.Image, data: bytes, end: int) -> bool:
    """Whether a JPEG gives the same pixels with other bytes before its end mark, which a whole image does not need."""
    other = data[:end] + GARBAGE + data[end:]
    try:
        return ImageChops.difference(image, Image.open(io.BytesIO(other), formats=("JPEG",))).getbbox() is None
    except (OSError, ValueError):
        return False


def _scans(data: bytes) -> tuple[int, int]:
    """Where a JPEG's end mark is (the length of the file without one), and how many colour components lack a scan."""
    to_come: dict[int, list[int]] = {}  # component -> for each of 64 coefficients, whether bits of it are to come
    place = 2
    while (found := NEXT_MARKER.search(data, place)) is not None:
        marker, start = data[found.start() + 1], found.end()
        if marker == END:
            return found.start(), sum(any(bits) for bits in to_come.values())
        place = start + int.from_bytes(data[start : start + 2], "big")
        segment = data[start + 2 : place]
        if marker in FRAMES:
            to_come = {segment[6 + 3 * n]: [1] * 64 for n in range(segment[5])}
        elif marker == SCAN:
            components, (first, last, bits) = segment[1 : 1 + 2 * segment[0] : 2], segment[1 + 2 * segment[0] :][:3]
            for component in components:
                to_come[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    return len(data), sum(any(bits) for bits in to_come.values())
