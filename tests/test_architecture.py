"""The shape of the package: no circle of imports, files that can be read at a sitting, every public name once."""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SUR = ROOT / "sur"
FILES = sorted({file for top in ("sur", "cache", "flows") for file in (ROOT / top).rglob("*.py")})
LONGEST_FILE, MEDIAN_FILE = 320, 110  # lines
ENTRY_POINTS = ("sur/cli/", "flows/")  # commands and flows have the name of the function that they call
POSIX = {"fcntl", "grp", "pwd", "resource", "select", "termios"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import of the package, also those inside functions; not those that only type checkers see."""
    return grimp.build_graph("sur", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None)


def in_circles(graph: grimp.ImportGraph) -> list[str]:
    """Modules that import themselves through others, and those between two such circles."""
    imports = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    importers = {module: set(graph.find_modules_that_directly_import(module)) for module in graph.modules}
    rest = set(graph.modules)
    for neighbours in (imports, importers):
        while ends := {module for module in rest if not neighbours[module] & rest}:
            rest -= ends
    return sorted(rest)


def public_names(file: Path) -> list[str]:
    """Public classes and functions that a file defines."""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(file.read_text()).body
    return [node.name for node in body if isinstance(node, definitions) and not node.name.startswith("_")]


def test_no_modules_import_each_other_in_a_circle(graph):
    assert in_circles(graph) == []


def test_a_circle_would_be_seen():
    graph = grimp.ImportGraph()
    for module in ("a", "b", "c", "d"):
        graph.add_module(module)
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert in_circles(graph) == ["b", "c"]


def test_only_the_public_face_lies_beside_the_rooms():
    assert {entry.name for entry in SUR.iterdir() if entry.is_file()} == {"__init__.py", "py.typed"}


def test_files_can_be_read_at_a_sitting():
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in FILES}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}
    assert statistics.median(lines.values()) < MEDIAN_FILE


def test_no_public_name_means_two_things():
    places = defaultdict(list)
    for file in FILES:
        path = file.relative_to(ROOT).as_posix()
        if not path.startswith(ENTRY_POINTS):
            for name in public_names(file):
                places[name].append(path)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_using_an_adapter_imports_nothing_of_the_cache_the_flows_or_posix(graph):
    users = ("sur.adapter.generate", "sur.adapter.hub", "sur.adapter")
    modules = set(users)
    waiting = list(users)
    while waiting:
        module = waiting.pop()
        imported = graph.find_modules_directly_imported_by(module) if module.startswith("sur") else set()
        if module == "sur.support.errors":  # commands alone ask for the types of the cache's errors
            imported = imported - {"sur.cache"}
        waiting += imported - modules
        modules |= imported
    ours = {module.split(".")[1] for module in modules if module.startswith("sur.")}
    assert ours == {"adapter", "config", "models", "support"}
    assert not modules & POSIX
