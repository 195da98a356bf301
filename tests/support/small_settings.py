"""Settings under which a run takes seconds."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"


SMALL = [
    "store.rows_per_partition=32",
    "llm.layers=[2]",
    "readout.queries_per_layer=64",
    "readout.rows=32",
    "train.steps=12",
    "train.batch_size=8",
    "train.warmup_steps=2",
    "train.validation_fraction=0.2",
    "train.validate_every=6",
    "train.validation_batches=1",
    "train.save_every=4",
    "train.log_every=1",
    "train.trackers=[]",
    "loss.distillation.teacher_steps=1",
    "loss.alignment.queries_per_step=16",
    "evaluate.prompts=4",
    "evaluate.steps=3",
    "evaluate.examples=2",
    "evaluate.resamples=100",
]
