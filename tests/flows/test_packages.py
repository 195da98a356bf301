"""Packages that a run will need are asked for before anything is started."""

import importlib.util

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from tiny_run import save_config_file

from sur.config.run import load_config
from sur.flows.runtime import launch
from sur.flows.runtime.packages import check_packages
from sur.support.errors import ConfigError

ABSENT = next(name for name in LOGGER_TYPE_TO_CLASS if name not in map(str, get_available_trackers()))


@pytest.fixture
def nothing_but_ours(monkeypatch):
    """No package that only some settings need is installed."""
    find = importlib.util.find_spec
    optional = ("prefect_dask", "prefect_ray", "distributed", "ray", "pyiqa")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in optional else find(name, *more)
    )


@pytest.mark.parametrize(
    ("setting", "flows", "message"),
    [
        (
            f"train.trackers=[{ABSENT}]",
            ["train", "sweep", "pipeline", "nightly"],
            f"names {ABSENT}, which is not installed",
        ),
        ("flow.runner=dask", ["extract", "pipeline", "nightly"], "pip install prefect-dask distributed, or use"),
        (
            "flow.runner=ray",
            ["extract", "pipeline", "nightly"],
            "pip install prefect-ray ray, or use flow.runner=processes",
        ),
        ("evaluate={iqa: [brisque], sets: [everyday]}", ["pipeline", "nightly"], "pip install pyiqa, or leave"),
    ],
)
def test_a_missing_package_is_told_by_every_flow_that_needs_it_and_by_no_other(
    tmp_path, nothing_but_ours, setting, flows, message
):
    config = load_config(save_config_file(tmp_path, tmp_path, tmp_path), [setting])
    for flow in ("extract", "train", "sweep", "pipeline", "nightly"):
        if flow in flows:
            with pytest.raises(ConfigError, match=message):
                check_packages(flow, config)
        else:
            check_packages(flow, config)


def test_it_is_told_before_prefect_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "prefect_ready", lambda _run_dir: pytest.fail("Prefect was started"))
    config = load_config(save_config_file(tmp_path, tmp_path, tmp_path), [f"train.trackers=[{ABSENT}]"])
    with pytest.raises(ConfigError, match="which is not installed"):
        launch.run_flow("train", config)
