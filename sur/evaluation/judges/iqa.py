"""Picture quality by metrics of pyiqa (brisque, musiq, clipiqa and others) that need no reference picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from sur.evaluation.prompts.prompts import Need, Prompt
from sur.support.errors import ConfigError


class IQAScorer:
    """One metric of pyiqa. It knows nothing of the prompt: quality, not content."""

    needs: Need = "picture"
    top: float | None = None

    def __init__(self, metric: str) -> None:
        try:
            import pyiqa  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError(
                f"evaluate.iqa=[{metric}] needs the package pyiqa ({error}): pip install pyiqa, "
                "which brings torchvision; or leave evaluate.iqa out"
            ) from error
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._metric = pyiqa.create_metric(metric, device=self._device)
        except Exception as error:  # pyiqa asserts, downloads and imports in there
            raise ConfigError(
                f"pyiqa made no metric {metric!r} ({type(error).__name__}: {error}); correct evaluate.iqa "
                "(pyiqa.list_models() has the names), or let it download its weights once"
            ) from error
        if getattr(self._metric, "metric_mode", "NR") != "NR":
            raise ConfigError(f"pyiqa's {metric!r} compares with a reference picture, and there is none; leave it out")
        self.name = metric
        self.higher_is_better = not self._metric.lower_better
        better = "higher" if self.higher_is_better else "lower"
        self.meaning = f"picture quality by pyiqa's {metric}, {better} is better"

    @torch.no_grad()
    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[float | None]:
        """The metric of each picture by itself; None where it is not finite."""
        return [self._one(picture) for picture in pictures]

    def _one(self, picture: Image.Image) -> float | None:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].to(self._device)
        value = float(self._metric(pixels.float() / 255))
        return value if math.isfinite(value) else None
