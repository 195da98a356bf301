"""Pictures of fixed prompts in the course of a training: <run_dir>/samples/step-000200.png."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sur.adapter.base import BaseAdapter
from sur.config.evaluation import EvaluateConfig
from sur.config.run_folder import RunFolder
from sur.config.training import TrainConfig
from sur.support.files import replacing


class Sampler:
    """Draws train.sample_prompts under train.sample_seeds; the base pipeline is loaded with the first grid.

    A grid has one line for each prompt and one column for each seed. Pictures are sampled as those of evaluations
    (evaluate.steps, evaluate.guidance). base: folder or hub id of the pipeline, and its revision.
    """

    def __init__(
        self, base: tuple[str, str | None], settings: TrainConfig, sampling: EvaluateConfig, folder: RunFolder
    ) -> None:
        self.base, self.settings, self.sampling, self.folder = base, settings, sampling, folder
        self._pipe: Any = None

    def draw(self, adapter: BaseAdapter, step: int) -> Path:
        """Draw with a copy of the adapter, which stays as it is; returns the grid's path."""
        from diffusers.utils import make_image_grid  # pyright: ignore[reportAttributeAccessIssue]

        from sur.adapter.generate import generate, load_pipeline

        if self._pipe is None:
            self._pipe = load_pipeline(*self.base)
        prompts, seeds, sampling = self.settings.sample_prompts, self.settings.sample_seeds, self.sampling
        cells = [(prompt, seed) for prompt in prompts for seed in seeds]
        with TemporaryDirectory() as folder:
            copy = type(adapter).from_pretrained(adapter.save_pretrained(folder))
        pictures = generate(
            self._pipe, [prompt for prompt, _ in cells], [seed for _, seed in cells], copy,
            steps=sampling.steps, guidance=sampling.guidance, batch_size=sampling.batch_size,
            t5_tokens=copy.t5_tokens,
        )  # fmt: skip
        target = self.folder.samples / f"step-{step:06d}.png"
        with replacing(target) as partial:
            make_image_grid(pictures, rows=len(prompts), cols=len(seeds)).save(partial, format="png")
        return target
