"""CLIPScore: does the picture fit its narrative, as a CLIP model sees it?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sur.config.evaluation import ClipConfig
from sur.evaluation.judges.judge_model import load_judge_model
from sur.evaluation.prompts.prompts import Need, Prompt

SCALE = 2.5


class ClipScorer:
    """2.5 max(cos(picture, narrative), 0) (Hessel et al. 2021, arXiv 2104.08718, section 3).

    Pictures under every condition are compared with the narrative, so that a complex prompt's style keywords earn
    nothing. A narrative longer than CLIP reads is cut.
    """

    name = "clip"
    meaning = "CLIPScore: how well a CLIP model finds that the picture fits the narrative"
    needs: Need = "narrative"
    higher_is_better = True
    top: float | None = None

    def __init__(self, config: ClipConfig) -> None:
        from transformers import CLIPModel

        self._judge = load_judge_model("evaluate.clip", config.model, config.revision, {"clip": CLIPModel})

    @torch.no_grad()
    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[float | None]:
        """CLIPScore of each picture with its prompt's narrative."""
        images = self._judge.model.get_image_features(**self._judge.pixels(pictures))
        texts = self._judge.model.get_text_features(**self._judge.tokens([prompt.narrative for prompt in prompts]))
        cosine = torch.cosine_similarity(_vectors(images), _vectors(texts))
        return [SCALE * max(value, 0.0) for value in cosine.tolist()]


def _vectors(features: object) -> Float[Tensor, "batch dim"]:
    """The projected features, which some versions of transformers return bare and others as pooler_output."""
    return features if isinstance(features, Tensor) else getattr(features, "pooler_output")  # noqa: B009
