"""How a large language model reads the simple prompts: which model, layers, pooling and template."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cache import Codec
from sur.encoders.base import FloatName, slug
from sur.vllm.config import VLLMConfig


class LLMConfig(BaseModel):
    """One LLM, any set of its layers, one pooling; every layer becomes a feature of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    backend: Literal["hf", "vllm"] = Field(
        default="hf", description="engine that runs the model: transformers in this process, or vLLM in its own"
    )
    vllm: VLLMConfig | None = Field(default=None, description="vLLM's server, for backend vllm")
    model: str = Field(description="folder, hub id, .gguf file, or package:NAME of one that ships it")
    gguf_file: str | None = Field(default=None, description="name of the GGUF file inside the model's folder")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    slug: str | None = Field(default=None, description="name in the features; default: last part of `model`")
    layers: tuple[int, ...] = Field(description="hidden states to keep: 0 embeddings, L after the final norm")
    pooling: Literal["mean", "last", "tokens"] = Field(
        default="mean",
        description="mean or tokens: over the prompt's own tokens only (no template, BOS or EOS); "
        "last: the last token of all that the model reads (template's end and special tokens included)",
    )
    template: str | None = Field(default=None, description='text around "{prompt}"; "chat": the tokenizer\'s own')
    add_special_tokens: bool = Field(default=True, description="let the tokenizer add its BOS/EOS (never with chat)")
    max_tokens: int = Field(default=128, ge=1, description="tokens of the prompt that are kept; template on top")
    tokens_per_batch: int = Field(default=4096, ge=1, description="upper bound of rows x padded tokens in one batch")
    compute_dtype: FloatName = Field(default="float32", description="dtype of the weights while encoding")
    store_dtype: FloatName = Field(default="bfloat16", description="dtype in the cache")
    codec: Codec | None = Field(
        default=None,
        description="packs the values on disk; none: zstd for tokens, most of which are padding, else raw, the fastest",
    )
    keep_bits: int = Field(default=0, ge=0, description="bits of the mantissa kept when stored; 0 = all")
    device: str = Field(default="auto", description="torch device; auto: CUDA when there is one")
    trust_remote_code: bool = Field(default=False, description="run code that the model's folder brings along")

    @field_validator("layers")
    @classmethod
    def _layers_ascend(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if not layers or min(layers) < 0 or len(set(layers)) != len(layers):
            raise ValueError(f"layers must be distinct numbers from 0 (embeddings) to L (last), got {layers}")
        return tuple(sorted(layers))

    @model_validator(mode="after")
    def _template_names_prompt(self) -> LLMConfig:
        if self.template not in (None, "chat") and self.template.count("{prompt}") != 1:
            raise ValueError(f'template must be "chat" or hold "{{prompt}}" once, got {self.template!r}')
        return self

    @model_validator(mode="after")
    def _vllm_has_a_server(self) -> LLMConfig:
        if self.backend == "vllm" and self.vllm is None:
            raise ValueError("backend is vllm, but there is no section vllm; set vllm.endpoint or vllm.launch")
        return self

    @property
    def name(self) -> str:
        """The slug that features carry."""
        return self.slug or slug(self.model)

    def feature_name(self, layer: int) -> str:
        """Name of the feature that holds one layer."""
        return f"llm.{self.name}.l{layer:02d}.{self.pooling}"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features, lowest layer first."""
        return tuple(self.feature_name(layer) for layer in self.layers)
