"""Self-contained pages: templates, and pictures as data: addresses inside the page."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from sur.support.files import write_text
from sur.support.formatting import format_bytes
from sur.support.images import ImageError, decode, encode

PICTURE_SIDE = 256  # pixels of a picture's longer side on a page, at most
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_log = logging.getLogger(__name__)


@cache
def environment(package: str | None = None) -> Environment:
    """Jinja's environment for the folder `templates` of a package, if one is named, and for that of `sur.support`.

    Everything is escaped; an unknown name is an error. Filters: `n` (12,345), `bytes` (1.2 MB), `log1p`.
    """
    loaders = [PackageLoader(name) for name in (package, "sur.support") if name is not None]
    jinja = Environment(loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    jinja.filters |= {"n": "{:,}".format, "bytes": format_bytes, "log1p": math.log1p}
    return jinja


def render_template(template: str, context: Mapping[str, Any], package: str | None = None) -> str:
    """The page that a template makes of a context; `package` as for `environment`."""
    return environment(package).get_template(template).render(context)


def write_page(target: Path, page: str) -> Path:
    """Write a page in place of an older one, all or nothing; returns its path."""
    return write_text(target, page)


def picture_uri(path: Path) -> str:
    """Address of a picture file for a page; a picture larger than `PICTURE_SIDE` is made smaller.

    Raises: ImageError when the file is no picture, or has more pixels than are safe to decode.
    """
    content = path.read_bytes()
    picture = decode(content)
    if picture.width <= PICTURE_SIDE and content.startswith(_PNG_SIGNATURE):
        return data_uri("image/png", content)
    return image_uri(picture)


def picture_uri_if_whole(path: Path) -> str:
    """`picture_uri`, or "" for a file that cannot be shown; the log says why."""
    try:
        return picture_uri(path)
    except (ImageError, OSError) as error:
        _log.warning("the picture %s is left out: %s", path, error)
        return ""


def image_uri(image: Image.Image) -> str:
    """Address of a decoded picture for a page; small pictures lose nothing."""
    content, kind = encode(image, PICTURE_SIDE)
    return data_uri(kind, content)


def svg_uri(content: bytes) -> str:
    """Address of an SVG image for a page."""
    return data_uri("image/svg+xml", content)


def data_uri(kind: str, content: bytes) -> str:
    """Address that holds bytes of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
