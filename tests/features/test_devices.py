"""Device slots: one a process, free again when it ends, several of a CPU."""

import multiprocessing
import os

import pytest
from tiny_run import tiny_config

from sur.config.run import load_config
from sur.features.devices import DeviceClaim, claim_device, forget_devices, on_device
from sur.support.errors import ConfigError


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def _claim_and_wait(folder, devices, pipe):
    import tempfile

    tempfile.tempdir = folder
    try:
        pipe.send(claim_device(devices, "run"))
    except ConfigError as error:
        pipe.send(str(error))
    pipe.recv()


@pytest.fixture
def worker(tmp_path):
    """Starts processes that claim one of the devices and keep it; returns what each was told."""
    context, started = multiprocessing.get_context("spawn"), []

    def start(devices):
        ours, theirs = context.Pipe()
        process = context.Process(target=_claim_and_wait, args=(str(tmp_path), devices, theirs))
        process.start()
        started.append((process, ours))
        assert ours.poll(120)
        return process, ours.recv()

    yield start
    for process, pipe in started:
        if process.is_alive():
            pipe.send("go")
        process.join(60)


def test_a_process_keeps_the_device_that_it_was_given():
    assert claim_device(["cpu", "cuda:7"], "mine") == claim_device(["cuda:7"], "mine") == "cpu"


@pytest.mark.slow
def test_every_process_has_a_device_of_its_own_and_one_too_many_is_told(worker):
    two = ["cuda:0", "cuda:1"]
    assert {worker(two)[1] for _ in two} == set(two)
    assert "name a device for every worker" in worker(two)[1]


@pytest.mark.slow
def test_the_device_of_a_killed_process_is_free_again(worker):
    process, device = worker(["cuda:0"])
    process.kill()
    process.join(60)
    assert worker(["cuda:0"])[1] == device == "cuda:0"


def test_runs_do_not_share_slots_and_leave_no_files(tmp_path):
    assert claim_device(["cpu"], "one") == claim_device(["cpu"], "two") == "cpu"
    claim = DeviceClaim.of_process
    assert claim is not None and claim.scope == "two"  # the earlier run's is let go
    forget_devices("one")
    folder = tmp_path / f"sur-devices-{os.getuid()}"
    assert [path.name for path in folder.iterdir()] == ["two-0.lock"]
    assert folder.stat().st_mode & 0o077 == 0


def test_every_encoder_goes_to_the_device(tmp_path):
    config = on_device(tiny_config(tmp_path, tmp_path, tmp_path), "cuda:3")
    assert config.llm is not None and config.vae is not None
    assert {config.llm.device, config.text.device, config.vae.device} == {"cuda:3"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["flow.workers=2"], "set runner to processes"),
        (["flow.devices=[cpu]"], "set runner to processes"),
        (["flow.runner=processes", "flow.address=tcp://a:1"], "address is for the runners dask and ray"),
        (["flow.runner=processes", "flow.workers=3", "flow.devices=[cpu,cpu]"], "name a device for each"),
        (
            ["flow.runner=dask", "llm.backend=vllm", "llm.vllm.launch=.venv-vllm"],
            "would start a vLLM server in every worker",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path, settings, message):
    from tiny_run import save_config_file

    with pytest.raises(ConfigError, match=message):
        load_config(save_config_file(tmp_path, tmp_path, tmp_path), settings)
