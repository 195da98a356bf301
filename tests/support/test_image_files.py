"""Damage that decoders forgive: grey, coarse and zero-filled pictures are refused, whole ones are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sur.support.images import ImageError, decode

END = b"\xff\xd9"
KINDS = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "no chroma subsampling": {"subsampling": 0},
    "restart markers": {"restart_marker_rows": 1},
}


def jpeg(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()


def scene(mode: str = "RGB", size: tuple[int, int] = (100, 75)) -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    noise = np.random.default_rng(7).integers(0, 40, (size[1], size[0]))
    pixels = np.stack([across, down, (across + down) / 2 + noise], axis=-1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_jpeg_with_an_end_mark_is_refused_and_a_whole_one_is_not(kind, mode):
    whole = jpeg(scene(mode), quality=90, **KINDS[kind])
    assert decode(whole).size == (100, 75)
    last_scan = whole.rfind(b"\xff\xda") / len(whole)  # a cut in it leaves a progressive image a shade coarser
    shares = (0.3, 0.5, 0.7, 0.9) if kind != "progressive" else (0.3 * last_scan, 0.6 * last_scan, 0.95 * last_scan)
    for share in shares:
        with pytest.raises(ImageError, match="corrupt or truncated JPEG image|not a readable image"):
            decode(whole[: int(len(whole) * share)] + END)


@pytest.mark.parametrize("kind", KINDS)
def test_grey_that_was_photographed_is_no_damage(kind):
    for image in (Image.new("RGB", (50, 40), (128, 128, 128)), scene()):
        image.paste((128, 128, 128), (0, 30, *image.size))
        whole = jpeg(image, quality=95, **KINDS[kind])
        assert decode(whole).size == image.size
    if kind != "progressive":
        with pytest.raises(ImageError, match="its data ends before its pixels do"):
            decode(whole[: len(whole) * 2 // 3] + END)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a_download_that_zeros_fill_up_is_refused(form):
    whole = jpeg(scene(size=(300, 200)), form, quality=95)
    half = len(whole) // 2
    with pytest.raises(ImageError, match="corrupt or truncated"):
        decode(whole[:half] + bytes(len(whole) - half))


def test_zeros_behind_a_whole_jpeg_are_no_damage():
    assert decode(jpeg(scene()) + bytes(5000)).size == (100, 75)


def test_small_pictures_of_every_size_are_whole():
    for width in range(1, 20):
        for kind in KINDS.values():
            assert decode(jpeg(scene(size=(width, 20 - width)), quality=50, **kind)).size == (width, 20 - width)
