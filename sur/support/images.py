"""Image files: decoded safely, cropped by one of two policies, encoded small for a page."""

from __future__ import annotations

import io
import warnings
from typing import Literal, NamedTuple

from PIL import Image, ImageOps

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels is checked below
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels: {error}", "shrink the image") from error
    except Exception as error:
        reason = f"not a readable image ({len(data)} bytes, {type(error).__name__})"
        raise ImageError(reason, f"replace the file by one of {', '.join(FORMATS)}") from error
    width, height = image.size
    if width * height > max_pixels:
        reason = f"{width} x {height} = {width * height} pixels, more than the limit of {max_pixels}"
        raise ImageError(reason, "shrink the image or raise data.max_image_pixels")
    return image


def decode(data: bytes, max_pixels: int = 64_000_000) -> Image.Image:
    """The whole image as RGB, turned upright by its EXIF tag, with white behind what is transparent.

    Raises: ImageError when the image is corrupt, truncated, too large or of an unknown format.
    """
    image = open_checked(data, max_pixels)
    try:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:
        reason = f"corrupt or truncated {image.format} image ({type(error).__name__}: {error})"
        raise ImageError(reason, "replace the file or remove the row") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16 bits a pixel; convert() would clip them
        import numpy as np

        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


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
