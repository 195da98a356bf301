"""Encoders: frozen models that turn prompts and images into features of the cache."""

from sur.config.features import LLMConfig, TextConfig, VAEConfig
from sur.features.encoders.base import EncodedItems, Encoder
from sur.features.encoders.build import build_encoders
from sur.features.encoders.llm.encoder import LLMEncoder
from sur.features.encoders.text import TextEncoder
from sur.features.encoders.vae import VAEEncoder

__all__ = [
    "EncodedItems",
    "Encoder",
    "LLMConfig",
    "LLMEncoder",
    "TextConfig",
    "TextEncoder",
    "VAEConfig",
    "VAEEncoder",
    "build_encoders",
]
