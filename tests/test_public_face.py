"""The names that `import sur` offers: few, found, cheap, and those that the documents use."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sur

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FROM_SUR = re.compile(r"^[ >]*from (sur(?:\.\w+)*) import (\([^)]*\)|[^\n#]+)", re.MULTILINE)
DOTTED = re.compile(r"(?<![\w./-])sur((?:\.[A-Za-z_]\w*)+)")


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or a package."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one; of `sur` itself only the public ones count."""
    if is_module(name):
        return True
    owner, _, attribute = name.rpartition(".")
    if owner == "sur":
        return attribute in sur.__all__
    if is_module(owner):
        return hasattr(importlib.import_module(owner), attribute)
    return bool(owner) and resolves(owner)  # a method


def names_in(text: str) -> set[str]:
    """Dotted names under `sur` that a document uses, those of `from sur... import ...` included."""
    names = {f"sur{match}" for match in DOTTED.findall(text)}
    for module, imported in FROM_SUR.findall(text):
        parts = [part.split(" as ")[0].strip() for part in imported.strip("()").split(",")]
        names |= {f"{module}.{part}" for part in parts if part}
    return names


@pytest.mark.parametrize("name", sur.__all__)
def test_every_public_name_is_found_and_listed(name):
    assert getattr(sur, name) is not None
    assert name in dir(sur)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = sur.train  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_loads_nothing_large():
    code = "import sur, sys; print(*(sys.modules.keys() & {'torch', 'numpy', 'pydantic', 'zarr'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_version_is_that_of_the_installed_package():
    assert importlib.metadata.version("sur-feature-cache") == sur.__version__


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_what_there_is(document):
    names = {name for name in names_in(document.read_text()) if not name.endswith((".py", ".yaml", ".md"))}
    assert {name for name in names if not resolves(name)} == set()


def test_names_in_a_document_are_read():
    text = (
        "`sur.fit(config)`\n    from sur.a.b import (C,\n        d as e)\n    from sur import Adapter  # ours\nx.sur.no"
    )
    assert names_in(text) == {"sur.fit", "sur.a.b", "sur.a.b.C", "sur.a.b.d", "sur.Adapter"}
