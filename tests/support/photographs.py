"""Real photographs in the layout of SURD."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (12, 9), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, form)
    return made.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


FAULTS = {
    "cut": "corrupt or truncated PNG",
    "huge.png": "pixels",
    "text": "not a readable image",
    "empty": "empty (0 bytes)",
    "../secret.png": "leaves the data root",
    "/etc/hostname": "leaves the data root",
    "link": "is a link out of the data root",
    "nowhere": "there is no image",
    "twice": "could be any of twice.jpg, twice.png",
}


def write_lines(file: Path, rows: list) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


PHOTOS = {
    "astronaut.png": ("a smiling woman in an orange suit", "portrait of an astronaut, NASA, flag, 8k"),
    "coffee.png": ("something hot to drink on a table", "cup of espresso, spoon, wooden table, macro"),
    "chelsea.png": ("a pet looks at you", "tabby cat, close up, green eyes, bokeh, detailed fur"),
    "rocket.jpg": ("it leaves for space", "rocket launch pad at night, searchlights, long exposure"),
}


@pytest.fixture
def surd(tmp_path) -> Path:
    """The SURD layout with real photographs, and one of each fault."""
    import skimage.data

    photos = Path(skimage.data.__file__).parent
    folder = tmp_path / "surd"
    rows: list = []
    for name, (simple, complex_) in PHOTOS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((photos / name).read_bytes())
        shown = name if name != "coffee.png" else "coffee"
        rows.append({"file_name": shown, "text": simple, "prompt": complex_})
    good = rows[0]
    whole = (folder / "chelsea.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "huge.png").write_bytes(huge_png(60_000, 50_000))
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(picture())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("twice.png", "twice.jpg"):
        (folder / name).write_bytes(picture())
    rows += [good | {"file_name": name} for name in FAULTS]
    rows += [good, good | {"text": "  "}, good | {"prompt": None}, {"file_name": "coffee", "prompt": "x"}]
    rows += [good | {"text": 17}, "{broken", "[1, 2]", good | {"text": "\ud800 lone"}, good | {"text": "a" * 30_000}]
    write_lines(folder / "metadata.jsonl", rows)
    return folder
