"""A tiny extracted run to train on, and trainings in real processes of their own."""

import subprocess
import sys
from pathlib import Path

from tiny_run import save_models, save_rows, tiny_config

from sur.config.load import save_config
from sur.config.run import RunConfig
from sur.features.extraction import extract

TRAIN = (
    "train.steps=6",
    "train.batch_size=8",
    "train.warmup_steps=2",
    "train.validation_fraction=0",
    "train.trackers=[]",
)
MEANS = (  # losses that are means over rows: one batch, its parts, and its processes give one gradient
    "loss.alignment={form: denoiser}",
    "loss.denoising.weight=0.5",
    "loss.distillation={form: pooled, measure: mse}",
)
PROGRAM = (
    "import sys; from sur.config.run import load_config; from sur.training.fit import fit;"
    "fit(load_config(sys.argv[1]), lambda step: (sys.stdout.write(f'{step.step}\\n'), sys.stdout.flush()))"
)


def tiny_store(folder: Path, *overrides: str) -> RunConfig:
    """An extracted tiny run of 40 rows, every one with a complex prompt and a picture."""
    rows = save_rows(folder / "rows", pictures=20, broken=False)
    config = tiny_config(folder, save_models(folder / "models"), rows, *TRAIN, *MEANS, *overrides)
    extract(config)
    return config


def variant(config: RunConfig, name: str, **sections: dict) -> RunConfig:
    """The run with a folder of its own beside the first one's, the same store, and some other settings."""
    values = config.model_dump()
    for section, update in sections.items():
        values[section] |= update
    return RunConfig.model_validate({**values, "run_dir": config.run_dir.parent / name})


def training_process(config: RunConfig, *launcher: str, **options) -> subprocess.Popen[str]:
    """`fit` in a process of its own, which prints its steps; launcher: arguments of python before the program's."""
    program = config.run_dir.parent / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, *launcher, str(program), str(save_config(config))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
