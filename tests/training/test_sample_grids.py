"""Sample grids: fixed prompts and seeds with the adapter of the moment; training does not notice."""

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tiny_training import tiny_store, variant

from sur.training.fit import fit

SAMPLES = {"sample_every": 3, "sample_prompts": ["two red cats", "a dog"], "sample_seeds": [0, 1, 2], "ema_decay": 0.5}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("samples"), "evaluate.steps=2", "train.learning_rate=0.05")


def test_grids_are_drawn_with_the_adapter_of_the_step_and_training_is_as_without(config):
    sampled, plain = variant(config, "sampled", train=SAMPLES), variant(config, "plain", train={"ema_decay": 0.5})
    weights = [load_file(fit(run) / "adapter.safetensors") for run in (sampled, plain)]
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())
    folder = sampled.run_dir / "samples"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000003.png", "step-000006.png"]
    grids = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    height, width = grids[0].shape[:2]
    assert (width % 3, height % 2) == (0, 0)
    cells = [
        grids[0][y : y + height // 2, x : x + width // 3] for y in (0, height // 2) for x in range(0, width, width // 3)
    ]
    assert len({cell.tobytes() for cell in cells}) == 6
    assert (grids[0] != grids[1]).any()
    assert not (plain.run_dir / "samples").exists()
