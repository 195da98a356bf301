"""diffusers' safety checker for Stable Diffusion, from a folder that the user gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

NO_SAFETY_CHECKER = "needs a safety checker: give its folder with --safety-checker (a Stable Diffusion pipeline's, say)"


def load_safety_checker(folder: Path) -> Callable[[list[Image.Image]], list[bool]]:
    """The function that flags pictures; `folder` is the checker's own, or that of a pipeline with one.

    Raises: ConfigError when there is none, or weights are not safetensors.
    """
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import AutoImageProcessor

    from sur.models.libraries import quiet_libraries
    from sur.support.errors import ConfigError

    own = folder / "safety_checker" if (folder / "safety_checker").is_dir() else folder
    beside = folder / "feature_extractor"
    try:
        with quiet_libraries():
            checker = StableDiffusionSafetyChecker.from_pretrained(own, local_files_only=True, use_safetensors=True)
            processor = AutoImageProcessor.from_pretrained(
                beside if beside.is_dir() else own, local_files_only=True, trust_remote_code=False, backend="pil"
            )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"there is no safety checker in {folder}: {error}\nGive a folder with its config.json, its weights as "
            "safetensors and a preprocessor_config.json"
        ) from error
    checker.eval()

    @torch.inference_mode()
    def flags(images: list[Image.Image]) -> list[bool]:
        pixels = processor(images=[image.convert("RGB") for image in images], return_tensors="pt").pixel_values
        blacked = [np.zeros((1, 1, 3)) for _ in images]  # what it returns in place of pictures is not used
        return [bool(flag) for flag in checker(images=blacked, clip_input=pixels)[1]]

    return flags
