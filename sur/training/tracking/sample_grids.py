"""Pictures of fixed prompts in the course of a training: <run_dir>/samples/step-000200.png."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sur.adapter.base import BaseAdapter

if TYPE_CHECKING:
    from sur.config.run import RunConfig


class Sampler:
    """Draws train.sample_prompts under train.sample_seeds; the base pipeline is loaded with the first grid.

    A grid has a line a prompt and a column a seed, sampled as evaluations are (evaluate.steps, evaluate.guidance).
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self._pipe: Any = None

    def draw(self, adapter: BaseAdapter, step: int) -> Path:
        """Draw with a copy of the adapter, which stays as it is; returns the grid's path."""
        from diffusers.utils import make_image_grid  # pyright: ignore[reportAttributeAccessIssue]

        from sur.adapter.generate import generate, load_pipeline

        if self._pipe is None:
            self._pipe = load_pipeline(*self.config.base)
        train, settings = self.config.train, self.config.evaluate
        asked = [(prompt, seed) for prompt in train.sample_prompts for seed in train.sample_seeds]
        with TemporaryDirectory() as folder:
            copy = type(adapter).from_pretrained(adapter.save_pretrained(folder))
        pictures = generate(
            self._pipe, [prompt for prompt, _ in asked], [seed for _, seed in asked], copy,
            steps=settings.steps, guidance=settings.guidance, batch_size=settings.batch_size,
            t5_tokens=copy.t5_tokens,
        )  # fmt: skip
        target = self.config.run_dir / "samples" / f"step-{step:06d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        grid = make_image_grid(pictures, rows=len(train.sample_prompts), cols=len(train.sample_seeds))
        grid.save(partial, format="png")
        return partial.replace(target)
