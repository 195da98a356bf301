"""Pages that need nothing beside them: pictures as data: addresses, and a file that is there whole or not at all."""

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

from sur.support.formatting import format_bytes
from sur.support.images import ImageError, decode, encode

LARGEST = 256  # pixels of a picture's side on a page
PNG = b"\x89PNG\r\n\x1a\n"
_log = logging.getLogger(__name__)


def picture_uri(path: Path) -> str:
    """A picture file for a page; one larger than it is shown is made smaller.

    Raises: ImageError when it is no picture, or has more pixels than are safe to decode.
    """
    content = path.read_bytes()
    picture = decode(content)
    if picture.width <= LARGEST and content.startswith(PNG):
        return data_uri("image/png", content)
    return image_uri(picture)


def picture_uri_if_whole(path: Path) -> str:
    """`picture_uri`, or "" for a file that cannot be shown, which is said in the log."""
    try:
        return picture_uri(path)
    except (ImageError, OSError) as error:
        _log.warning("the picture %s is left out: %s", path, error)
        return ""


def image_uri(image: Image.Image) -> str:
    """A decoded picture for a page, small ones without loss."""
    content, kind = encode(image, LARGEST)
    return data_uri(kind, content)


def svg_uri(content: bytes) -> str:
    """An SVG image for a page."""
    return data_uri("image/svg+xml", content)


def data_uri(kind: str, content: bytes) -> str:
    """Bytes of a media type as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write_page(target: Path, page: str) -> Path:
    """Write a page in place of an older one, all or nothing; returns its path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


@cache
def environment(package: str | None = None) -> Environment:
    """Jinja's environment for the templates in the folder `templates` of a package, and in that of `sur.support`.

    Everything is escaped, an unknown name is an error. Filters: `n` (12,345), `bytes` (1.2 MB), `log1p`.
    """
    loaders = [PackageLoader(name) for name in (package, "sur.support") if name is not None]
    made = Environment(loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters |= {"n": "{:,}".format, "bytes": format_bytes, "log1p": math.log1p}
    return made


def render(template: str, context: Mapping[str, Any], package: str | None = None) -> str:
    """The page that a template makes of a context; `package` is that of `environment`."""
    return environment(package).get_template(template).render(context)
