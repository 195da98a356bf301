"""diffusers' safety checker for Stable Diffusion, from a folder that the user gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

NO_SAFETY_CHECKER = "needs a safety checker: give its folder with --safety-checker (a Stable Diffusion pipeline's, say)"


def load_safety_checker(folder: Path) -> Callable[[list[Image.Image]], list[bool]]:
    """A function that flags pictures. folder: that of the checker, or of a pipeline that has one.

    Raises: ConfigError when the folder has no checker, or weights that are not safetensors.
    """
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import AutoImageProcessor

    from sur.models.libraries import quiet_libraries
    from sur.support.errors import ConfigError

    weights = folder / "safety_checker" if (folder / "safety_checker").is_dir() else folder
    extractor = folder / "feature_extractor" if (folder / "feature_extractor").is_dir() else weights
    try:
        with quiet_libraries():
            checker = StableDiffusionSafetyChecker.from_pretrained(weights, local_files_only=True, use_safetensors=True)
            processor = AutoImageProcessor.from_pretrained(
                extractor, local_files_only=True, trust_remote_code=False, backend="pil"
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
        blank = [np.zeros((1, 1, 3)) for _ in images]  # the checker returns these or black ones; they are not used
        return [bool(flag) for flag in checker(images=blank, clip_input=pixels)[1]]

    return flags
