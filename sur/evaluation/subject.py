"""The subject of an evaluation: an adapter on a pipeline, the settings, and the folder of the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sur.adapter.adapter_files import saved_settings
from sur.adapter.hub import adapter_folder
from sur.config.evaluation import EvaluateConfig
from sur.config.run_folder import RunFolder
from sur.evaluation.pictures import Pictures, Recipe
from sur.evaluation.prompts.prompts import Condition, Prompt
from sur.models.fingerprint import pipeline_fingerprint, weights_fingerprint
from sur.models.locate import PIPELINE_WEIGHTS, locate

if TYPE_CHECKING:
    from sur.config.run import RunConfig


@dataclass(frozen=True)
class Subject:
    """An adapter to be judged. base: folder or hub id of the pipeline, and its revision."""

    base: tuple[str, str | None]
    adapter: Path
    settings: EvaluateConfig
    folder: Path

    @classmethod
    def of_run(cls, config: RunConfig, adapter: str | Path) -> Subject:
        """An adapter for the pipeline of a run, with the run's settings and folder."""
        return cls(config.base, Path(adapter), config.evaluate, config.run_dir)

    @cached_property
    def pictures(self) -> Pictures:
        """The folder of its pictures."""
        return Pictures(self.settings.pictures or RunFolder(self.folder).pictures)

    @cached_property
    def base_fingerprint(self) -> str:
        """Fingerprint of the pipeline's files. Raises FileNotFoundError when there is no pipeline."""
        return pipeline_fingerprint(locate(*self.base, needed=PIPELINE_WEIGHTS).folder)

    @cached_property
    def adapter_fingerprint(self) -> str:
        """Fingerprint of the adapter's files. Raises FileNotFoundError when there is no adapter."""
        return weights_fingerprint(self.adapter)

    @cached_property
    def trained(self) -> dict[str, Any]:
        """Variant of the adapter, and identity of its training's text states. Raises FileNotFoundError without one."""
        content = saved_settings(adapter_folder(self.adapter))
        return {"variant": content.get("variant"), "text": content["trained_on"].get("text", {})}

    @property
    def rows_meet(self) -> bool:
        """Whether a prompt's states depend on the others of its batch, as a released adapter's do."""
        return self.trained["variant"] == "released"

    @cached_property
    def libraries(self) -> tuple[str, ...]:
        """The versions of the libraries that pictures depend on."""
        return tuple(f"{name} {version(name)}" for name in ("diffusers", "torch", "transformers"))

    def recipe(self, prompt: Prompt, condition: Condition, index: int, repeat: int) -> Recipe:
        """The recipe for the picture of a set's prompt `index`; its noise is the same under every condition.

        Raises: ValueError when the prompt has no text under the condition.
        """
        text, settings = prompt.text(condition), self.settings
        if text is None:
            raise ValueError(f"prompt {prompt.id} has no {condition} text")
        adapted = condition == "adapter"
        return Recipe(
            pipeline=self.base_fingerprint,
            adapter=self.adapter_fingerprint if adapted else None,
            weight=settings.weight if adapted else None,
            prompt=text,
            seed=10**12 * repeat + 10**6 * settings.seed + index,
            steps=settings.steps,
            guidance=settings.guidance,
            size=settings.size,
            t5_tokens=self.trained["text"].get("t5_tokens"),
            dtype=settings.dtype,
            device="cuda" if torch.cuda.is_available() else "cpu",
            libraries=self.libraries,
        )
