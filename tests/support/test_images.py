"""Decoding: upright, RGB, whole, and never more pixels than allowed; cropping: as the names say."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sur.features.encoders.vae import to_tensor
from sur.support.images import ImageError, decode, square


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(image, "JPEG", exif=exif)).size == (2, 4)


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert decode(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    assert decode(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped():
    grey = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], np.uint16))
    assert [decode(encoded(grey)).getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    form = "TIFF" if mode == "CMYK" else "PNG"
    image = decode(encoded(Image.new(mode, (3, 2)), form))
    assert image.mode == "RGB" and image.size == (3, 2)


def test_too_many_pixels_are_refused_undecoded(monkeypatch):
    data = encoded(Image.new("RGB", (20, 10)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="20 x 10 = 200 pixels, more than the limit of 199"):
        decode(data, max_pixels=199)


def test_every_cut_of_a_file_is_refused():
    data = encoded(Image.effect_noise((40, 40), 50), "PNG")
    for stop in range(0, len(data) - 13, len(data) // 25):
        with pytest.raises(ImageError):
            decode(data[:stop])


def test_programs_are_not_images():
    with pytest.raises(ImageError, match="not a readable image"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def test_square_and_tensor():
    image = Image.new("RGB", (30, 10), "black")
    image.paste("white", (10, 0, 20, 10))
    pixels = to_tensor([square(image, 8, "center"), square(image, 8, "stretch")])
    assert pixels.shape == (2, 3, 8, 8) and (pixels[0] == 1).all()
    assert pixels[1].min() == -1 and pixels[1].max() == 1
