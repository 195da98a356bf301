"""What each family of diffusers pipelines gives its denoiser, as its own `encode_prompt` returns it.

The adapter changes the states, which are always returned first. Pooled states, where a family has them, are left alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sur.support.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """One family. `pooled` and `mask`: places in what encode_prompt returns, None where it has none.

    mask: marks the tokens that the denoiser reads; without one it reads them all, padding included.
    width: key of the denoiser's config with the width of the states.
    tokenizer: that of the first states, of which `length` counts the real tokens. clip_first: those are CLIP's, which
    puts a mark before the prompt; T5 does not. flow: the denoiser predicts a flow's velocity.
    t5_tokens: states that T5 makes, unless told otherwise.
    """

    name: str
    denoiser: Literal["unet", "transformer"]
    width: str
    tokenizer: str = "tokenizer"
    pooled: int | None = None
    mask: int | None = None
    clip_first: bool = True
    flow: bool = False
    t5_tokens: int = 0


STABLE_DIFFUSION = Family("Stable Diffusion 1 and 2", "unet", "cross_attention_dim")
STABLE_DIFFUSION_XL = Family("Stable Diffusion XL", "unet", "cross_attention_dim", pooled=2)
STABLE_DIFFUSION_3 = Family(
    "Stable Diffusion 3", "transformer", "joint_attention_dim", pooled=2, t5_tokens=256, flow=True
)
PIXART_ALPHA = Family("PixArt-alpha", "transformer", "caption_channels", mask=1, clip_first=False, t5_tokens=120)
PIXART_SIGMA = Family("PixArt-sigma", "transformer", "caption_channels", mask=1, clip_first=False, t5_tokens=300)
FLUX = Family(
    "Flux", "transformer", "joint_attention_dim", "tokenizer_2", pooled=1, clip_first=False, t5_tokens=512, flow=True
)  # fmt: skip

_CLASSES = {
    r"StableDiffusion(?!XL|3|LDM3D)": STABLE_DIFFUSION,
    r"StableDiffusionXL": STABLE_DIFFUSION_XL,
    r"StableDiffusion3": STABLE_DIFFUSION_3,
    r"PixArtAlpha": PIXART_ALPHA,
    r"PixArtSigma": PIXART_SIGMA,
    r"Flux(Img2Img|Inpaint)?Pipeline": FLUX,
}
FAMILIES = tuple(_CLASSES.values())


def family_in(folder: Path) -> Family:
    """The family of the pipeline in a folder. Raises as `family_of`."""
    return family_of(json.loads((folder / "model_index.json").read_text()).get("_class_name", ""))


def family_of(pipeline: str) -> Family:
    """The family of a pipeline's class name.

    Raises ConfigError for one whose text states and denoiser are not known here.
    """
    for pattern, family in _CLASSES.items():
        if re.match(pattern, pipeline):
            return family
    raise ConfigError(
        f"the text encoders of {pipeline or 'this pipeline'} are not supported; those of these families are: "
        + ", ".join(family.name for family in FAMILIES)
    )
