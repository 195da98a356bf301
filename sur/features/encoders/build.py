"""From config sections to encoders."""

from __future__ import annotations

from sur.config.features import LLMConfig, TextConfig, VAEConfig
from sur.features.encoders.base import Encoder
from sur.features.encoders.llm.encoder import LLMEncoder
from sur.features.encoders.text import TextEncoder, pipeline_text
from sur.features.encoders.vae import VAEEncoder


def build_encoders(
    llm: LLMConfig | None = None, text: TextConfig | None = None, vae: VAEConfig | None = None
) -> list[Encoder]:
    """Encoders of the sections that are given: LLM, text (simple, then complex prompts), VAE.

    The two text encoders share one loaded pipeline.
    """
    encoders: list[Encoder] = []
    if llm is not None:
        encoders.append(LLMEncoder(llm))
    if text is not None:
        shared = pipeline_text(text)
        encoders += [TextEncoder(text, "simple", shared), TextEncoder(text, "complex", shared)]
    if vae is not None:
        encoders.append(VAEEncoder(vae))
    return encoders
