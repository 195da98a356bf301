"""An adapter is used where only torch, diffusers, transformers and their like are installed, on any system."""

from __future__ import annotations

import subprocess
import sys

import torch
from safetensors.torch import load_file
from tiny_models import save_pipeline

from sur.adapter.adapter import Adapter
from sur.config.adapter import AdapterConfig

HIDDEN = """
import sys

HIDDEN = {
    "fastapi", "fcntl", "google_crc32c", "grp", "jinja2", "matplotlib", "numcodecs", "obstore", "platformdirs",
    "prefect", "psutil", "pwd", "resource", "rich", "scipy", "starlette", "typer", "uvicorn", "zarr",
}  # huggingface_hub itself needs yaml, and termios where there is one


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN or name in ("sur.cache", "sur.flows"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


for module in [name for name in sys.modules if name.split(".")[0] in HIDDEN]:
    del sys.modules[module]
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""
USE = """
import sys

import torch
from diffusers import StableDiffusionPipeline

import sur
from sur.adapter.generate import generate

pipeline, adapter, again, picture = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(pipeline)
loaded = sur.Adapter.from_pretrained(adapter)
loaded.save_pretrained(again)
noise = torch.Generator().manual_seed(0)
sur.attach(loaded, pipe)
first = pipe("a cat", num_inference_steps=2, generator=noise).images[0]
sur.detach(pipe)
second = generate(pipe, ["a cat"], [0], loaded, steps=2)[0]
assert first.tobytes() == second.tobytes()
first.save(picture)
print(*sorted(name for name in sys.modules if name.startswith(("sur.cache", "sur.flows"))))
"""


def test_an_adapter_is_loaded_attached_and_saved_without_cache_flows_and_posix(tmp_path):
    torch.manual_seed(0)
    adapter = Adapter(AdapterConfig(dim=32)).save_pretrained(tmp_path / "adapter")
    pipeline = save_pipeline(tmp_path / "pipe")
    places = [pipeline, adapter, tmp_path / "again", tmp_path / "picture.png"]
    done = subprocess.run([sys.executable, "-c", HIDDEN + USE, *map(str, places)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    assert (tmp_path / "picture.png").stat().st_size > 100
    one, other = (load_file(folder / "adapter.safetensors") for folder in (adapter, tmp_path / "again"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (adapter / "config.json").read_bytes() == (tmp_path / "again" / "config.json").read_bytes()
