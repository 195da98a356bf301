"""Decoding: upright, RGB, whole, and never more pixels than allowed; cropping: as the names say."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from sur.features.encoders.vae import to_tensor
from sur.support.images import ImageError, decode, open_checked, square


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


def ramp(kind, low, high):
    return encoded(Image.fromarray(np.linspace(low, high, 12).astype(kind).reshape(3, 4)), "TIFF")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (ramp(np.float32, 0, 1), np.linspace(0, 255, 12)),
        (ramp(np.float32, 0.25, 0.75), np.linspace(63.75, 191.25, 12)),
        (ramp(np.float32, 0, 255), np.linspace(0, 255, 12)),
        (ramp(np.int32, 0, 220), np.linspace(0, 220, 12)),
        (ramp(np.int32, 0, 65535), np.linspace(0, 65535, 12) / 256),
        (ramp(np.uint16, 0, 65535), np.linspace(0, 65535, 12) / 256),
    ],
)
def test_brightness_keeps_its_share_of_the_range_that_the_values_have(data, wanted):
    np.testing.assert_allclose(np.asarray(decode(data))[:, :, 1].ravel(), wanted, atol=1)


@pytest.mark.parametrize(
    "data",
    [
        ramp(np.float32, -1, 1),
        ramp(np.float32, 0, 1000),
        ramp(np.float32, np.nan, 1),
        ramp(np.int32, -5, 5),
        ramp(np.int32, 0, 10**6),
    ],
)
def test_brightness_in_no_known_range_is_refused_with_its_range(data):
    with pytest.raises(ImageError, match=r"the brightness goes from .* to .*; save the image with 8 bits a channel"):
        decode(data)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


LONG = zlib.compress(b"a cat, 8k, " * 300_000)
TEXTS = {
    "zTXt": chunk(b"zTXt", b"parameters\0\0" + LONG),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(np.random.default_rng(0).bytes(2_500_000))),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("behind_the_pixels", [False, True])
def test_long_texts_and_profiles_do_not_matter_to_pixels(kind, behind_the_pixels):
    image = Image.effect_noise((20, 30), 60).convert("RGB")
    plain = encoded(image)
    place = len(plain) - 12 if behind_the_pixels else 33  # before IEND, or behind IHDR
    data = plain[:place] + TEXTS[kind] + plain[place:]
    np.testing.assert_array_equal(np.asarray(decode(data)), np.asarray(image))
    assert open_checked(data, 10**6).size == (20, 30)


def test_short_texts_stay_for_those_who_read_them():
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat", zip=True)
    assert open_checked(encoded(Image.new("RGB", (4, 4)), pnginfo=info), 100).info["parameters"] == "a cat"


def test_avif_is_read_where_pillow_reads_it():
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert decode(encoded(Image.new("RGB", (16, 8), "red"), "AVIF")).size == (16, 8)
