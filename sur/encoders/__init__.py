"""Encoders: frozen models that turn prompts and images into features of the cache."""

from sur.encoders.base import Encoded, Encoder
from sur.encoders.build import build_encoders
from sur.encoders.llm import LLMEncoder
from sur.encoders.llm_config import LLMConfig
from sur.encoders.text import TextConfig, TextEncoder
from sur.encoders.vae import VAEConfig, VAEEncoder

__all__ = [
    "Encoded",
    "Encoder",
    "LLMConfig",
    "LLMEncoder",
    "TextConfig",
    "TextEncoder",
    "VAEConfig",
    "VAEEncoder",
    "build_encoders",
]
