"""The shapes world's own judge: is everything in the picture exactly as asked?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from sur.evaluation.prompts.prompts import Need, Prompt
from sur.shapes.oracle import Seen, facts, look
from sur.shapes.quality import frechet_distance, latent_vectors, rendered
from sur.shapes.scenes import Scene


class Oracle:
    """1 when the picture shows exactly the prompt's scene, else 0; None for a prompt without a scene."""

    name = "oracle"
    meaning = "share of pictures in which count, colours, shapes and relation are all as asked"
    needs: Need = "scene"
    higher_is_better = True
    top: float | None = 1.0

    def score(self, pictures: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[float | None]:
        """1 or 0 for each picture."""
        return [
            None if prompt.scene is None else float(all(facts(prompt.scene, look(picture)).values()))
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]


def wrong_facts(scene: Scene, picture: Image.Image) -> tuple[str, ...]:
    """Which of count, colour, shape and relation are not as the scene has them."""
    return tuple(name for name, holds in facts(scene, look(picture)).items() if not holds)


def fact_shares(scenes: Sequence[Scene], seen: Sequence[list[Seen]]) -> dict[str, float]:
    """Share of pictures in which each fact holds, of those that ask for it."""
    held = [facts(scene, found) for scene, found in zip(scenes, seen, strict=True)]
    names = dict.fromkeys(name for each in held for name in each)
    return {name: float(np.mean([each[name] for each in held if name in each])) for name in names}


def outline_fit(seen: Sequence[list[Seen]]) -> float:
    """Mean IoU of all objects found with the outline of their shape; 0 when there are none."""
    fits = [each.fit for found in seen for each in found]
    return float(np.mean(fits)) if fits else 0.0


def distance(vae: Any, pictures: Sequence[Image.Image], scenes: Sequence[Scene], seed: int) -> float | None:
    """Fréchet distance of pictures to rendered ones of the scenes, on latents.

    None for so few pictures that their covariance has no full rank.
    """
    made = latent_vectors(vae, pictures)
    return None if len(made) <= made.shape[1] else frechet_distance(made, latent_vectors(vae, rendered(scenes, seed)))
