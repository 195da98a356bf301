"""The templates of pages, and how they write numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sur.units import format_bytes


@cache
def environment() -> Environment:
    """Everything is escaped, an unknown name is an error. Filters: `n` (12,345), `bytes` (1.2 MB), `log1p`."""
    made = Environment(loader=PackageLoader("sur"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters |= {"n": "{:,}".format, "bytes": format_bytes, "log1p": math.log1p}
    return made


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page."""
    return environment().get_template(template).render(context)
