"""Loading models leaves the log to the program: no bars, no remarks of libraries about themselves."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sur.models.libraries import quiet_libraries

WEIGHTS = Path(__file__).parents[2] / "sur" / "shapes" / "weights"
LOADS = {
    "generate": "from sur.adapter.generate import load_pipeline; load_pipeline({!r})",
    "train": "from sur.models.denoiser import FrozenDenoiser; FrozenDenoiser.from_pipeline({!r})",
    "extract": "from PIL import Image; from sur.features.encoders import VAEConfig, VAEEncoder;"
    "VAEEncoder(VAEConfig(model={!r}, resolution=64)).encode([Image.new('RGB', (64, 64))])",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", LOADS)
def test_loading_models_writes_nothing(stage):
    command = [sys.executable, "-c", LOADS[stage].format(str(WEIGHTS))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_goes_wrong_in_a_library_is_still_said(caplog):
    log = logging.getLogger("diffusers.models")
    log.addHandler(caplog.handler)  # diffusers does not propagate
    with quiet_libraries():
        log.warning("a remark")
        log.error("a fault")
    log.removeHandler(caplog.handler)
    assert "a fault" in caplog.text and "a remark" not in caplog.text
    with pytest.warns(UserWarning, match="real"), quiet_libraries():
        warnings.warn("real", UserWarning, stacklevel=1)
