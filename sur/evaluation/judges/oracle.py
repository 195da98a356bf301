"""The judge of the shapes world: is everything in the picture exactly as asked?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from sur.evaluation.prompts.prompts import Need, Prompt
from sur.shapes.oracle import DetectedObject, detect_objects, facts
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
            None if prompt.scene is None else float(all(facts(prompt.scene, detect_objects(picture)).values()))
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]


def wrong_facts(scene: Scene, picture: Image.Image) -> tuple[str, ...]:
    """Names of the facts (count, colour, shape, relation) that the picture shows otherwise than the scene has them."""
    return tuple(name for name, holds in facts(scene, detect_objects(picture)).items() if not holds)


def fact_shares(scenes: Sequence[Scene], detected: Sequence[list[DetectedObject]]) -> dict[str, float]:
    """Share of pictures in which each fact holds, of the pictures whose scene has it."""
    results = [facts(scene, objects) for scene, objects in zip(scenes, detected, strict=True)]
    names = dict.fromkeys(name for result in results for name in result)
    return {name: float(np.mean([result[name] for result in results if name in result])) for name in names}


def outline_fit(detected: Sequence[list[DetectedObject]]) -> float:
    """Mean IoU of all objects with the outline of their shape; 0 when there are none."""
    fits = [detection.fit for objects in detected for detection in objects]
    return float(np.mean(fits)) if fits else 0.0


def frechet_to_rendered(vae: Any, pictures: Sequence[Image.Image], scenes: Sequence[Scene], seed: int) -> float | None:
    """Fréchet distance between pictures and rendered pictures of the scenes, on latents.

    None for so few pictures that their covariance has no full rank.
    """
    drawn = latent_vectors(vae, pictures)
    if len(drawn) <= drawn.shape[1]:
        return None
    return frechet_distance(drawn, latent_vectors(vae, rendered(scenes, seed)))
