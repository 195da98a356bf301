"""Settings and fixtures that the tests share: offline, and one small extracted store of the shapes world."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sys
from pathlib import Path

from small_settings import CONFIGS, SMALL

from sur.support.openmp import spin_briefly

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
spin_briefly()

import numpy as np
import pytest
import torch

from sur.config.run import RunConfig, load_config
from sur.features.extraction import extract
from sur.shapes.dataset import write_dataset
from sur.support.log import ROOT_LOGGER


def pytest_configure() -> None:
    """Nobody's own Prefect server hears of the tests."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup() -> None:
    """What a fixture draws depends on no test before it."""
    _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """What a test draws depends on no test before it."""
    _seed()


def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of the test's own."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def own_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Vectors that are kept for neighbours (sur/analysis/store/vectors.py) stay out of the user's own folder."""
    os.environ["SUR_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shapes_config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """configs/shapes.yaml on 64 paired and 32 unpaired rows, extracted with the real models; read-only."""
    run = tmp_path_factory.mktemp("shapes")
    data = write_dataset(run / "data", rows=64, unpaired=32)
    places = [f"run_dir={run}", f"data.path={data}", f"store.path={run / 'store.zarr'}"]
    config = load_config(CONFIGS / "shapes.yaml", [*SMALL, *places])
    extract(config)
    return config


@pytest.fixture
def own_config(shapes_config: RunConfig, tmp_path: Path) -> RunConfig:
    """`shapes_config` with a run folder and a store of the test's own."""
    shutil.copytree(shapes_config.store.path, tmp_path / "store.zarr")
    store = shapes_config.store.model_copy(update={"path": tmp_path / "store.zarr"})
    return shapes_config.model_copy(update={"run_dir": tmp_path / "run", "store": store})


@pytest.fixture(autouse=True)
def _prefect_logs_where_this_test_reads() -> None:
    """Prefect's log handlers keep the stderr of the test that first imported it, which is closed in later ones."""
    for handler in logging.getLogger(ROOT_LOGGER).handlers:
        console = getattr(handler, "console", None)
        if console is not None:
            console.file = sys.stderr
