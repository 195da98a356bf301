"""Image files: decoded safely, cropped by one of two policies, encoded small for a page."""

from __future__ import annotations

import io
import warnings
from typing import Literal, NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from sur.support.image_files import forgiven_fault, without_texts

# Formats that call no other program (as EPS does) and contain no other files (as PDF does).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
CropPolicy = Literal["center", "stretch"]


class EncodedImage(NamedTuple):
    """The bytes of a picture file, and its media type."""

    content: bytes
    kind: str


class ImageError(ValueError):
    """An image cannot be used; `reason` says why, `remedy` what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


def open_checked(data: bytes, max_pixels: int) -> Image.Image:
    """An image whose header is read and whose size is checked; its pixels are not decoded yet.

    Raises: ImageError when the bytes are no image of a known format, or the image has too many pixels.
    """
    if not data:
        raise ImageError("the image file is empty (0 bytes)", "replace the file or remove the row")
    try:
        image = _open(data)
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels: {error}", "shrink the image") from error
    except Exception as error:
        message = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        reason = f"not a readable image ({len(data)} bytes, {type(error).__name__}{message})"
        raise ImageError(reason, f"replace the file by one of {', '.join(FORMATS)}") from error
    width, height = image.size
    if width * height > max_pixels:
        reason = f"{width} x {height} = {width * height} pixels, more than the limit of {max_pixels}"
        raise ImageError(reason, "shrink the image or raise data.max_image_pixels")
    return image


def decode(data: bytes, max_pixels: int = 64_000_000) -> Image.Image:
    """The whole image as RGB, turned upright by its EXIF tag, with white behind what is transparent.

    Raises: ImageError when the image is corrupt, truncated, too large, of an unknown format or of unknown brightness.
    """
    image = open_checked(data, max_pixels)
    try:
        try:
            image.load()
        except ValueError:  # the texts behind a PNG's pixels are too long
            image = _open(without_texts(data))
            image.load()
        if fault := forgiven_fault(image, data):
            raise ImageError(
                f"corrupt or truncated {image.format} image ({fault})", "replace the file or remove the row"
            )
        return _to_rgb(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except Exception as error:
        reason = f"corrupt or truncated {image.format} image ({type(error).__name__}: {error})"
        raise ImageError(reason, "replace the file or remove the row") from error


def _open(data: bytes) -> Image.Image:
    """The image; of a PNG whose texts are longer than Pillow reads, the image without its texts."""
    Image.init()
    formats = [form for form in FORMATS if form in Image.OPEN]  # an older Pillow has no AVIF
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is checked by open_checked
        try:
            return Image.open(io.BytesIO(data), formats=formats)
        except ValueError:
            return Image.open(io.BytesIO(without_texts(data)), formats=formats)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits a pixel; convert() would clip them
        return _as_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _as_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits, 32 bits or floating-point numbers as 8 bits.

    Only 16 bits have a range by themselves. The others are read as the smallest range that holds their values: 0 to 1
    (floating-point numbers), 0 to 255, 0 to 65535 (whole numbers).

    Raises: ImageError when the values are in none of these ranges.
    """
    import numpy as np

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    is_float = image.mode == "F"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        scaled = values.astype(np.int64) >> 8
    elif is_float and low >= 0 and high <= 1:
        scaled = np.rint(values * 255.0)
    elif low >= 0 and high <= 255:
        scaled = np.rint(values)
    elif not is_float and low >= 0 and high <= 0xFFFF:
        scaled = values.astype(np.int64) >> 8
    else:
        ranges = "0 to 1 and 0 to 255" if is_float else "0 to 255 and 0 to 65535"
        raise ImageError(
            f"the brightness goes from {low:g} to {high:g}, which is in none of the ranges {ranges}",
            "save the image with 8 bits a channel",
        )
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, side: int) -> EncodedImage:
    """A file of the picture, at most `side` pixels wide and high: PNG if the picture fits, else shrunk to WebP."""
    buffer = io.BytesIO()
    if max(image.size) <= side:
        image.save(buffer, "PNG")
        return EncodedImage(buffer.getvalue(), "image/png")
    small = image.convert("RGB")
    small.thumbnail((side, side))
    small.save(buffer, "WEBP", quality=85)
    return EncodedImage(buffer.getvalue(), "image/webp")


def square(image: Image.Image, resolution: int, crop: CropPolicy) -> Image.Image:
    """The image at resolution x resolution pixels (Lanczos).

    center: the largest centred square is cut out, then resized. stretch: each side is scaled by its own factor.
    """
    if crop == "center":  # cut before resizing: resize(box=...) lets the filter reach beyond the box
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS)
