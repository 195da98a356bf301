"""What the package requires to be installed, by its extras, and the message for a package that is missing."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

DISTRIBUTION = "sur-feature-cache"


def missing_package(error: ModuleNotFoundError) -> str | None:
    """What to install for an import that failed; None for a module that belongs to no extra of this package."""
    module = (error.name or "").partition(".")[0]
    package = module.replace("_", "-")
    extras = extras_with(package)
    if not extras:
        return None
    return (
        f"this command needs the package {package}, which is not installed: pip install {package}, or all that such "
        f"commands need: pip install '.[{extras[0]}]' in a checkout of the repository"
    )


def extras_with(package: str) -> list[str]:
    """The extras of this package that require another one, in their order in pyproject.toml."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    pattern = re.compile(rf"{re.escape(package)}\b(?![-.]).*extra == ['\"]([a-z0-9-]+)['\"]", re.IGNORECASE)
    return [match[1] for line in lines if (match := pattern.match(line))]
