"""The settings of the encoders (LLM, text encoder, VAE) and of the denoiser's read-out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from sur.support.errors import NotFound
from sur.support.images import CropPolicy

FloatName = Literal["float32", "bfloat16", "float16"]
# A part of a feature's name, and so of a folder's.
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
MOST_TOKENS = 1_000_000  # of a prompt: more than any model reads
Codec = Literal["raw", "zstd", "blosc-shuffle", "blosc-bitshuffle", "pcodec"]  # those of sur.cache, which is not loaded


def slug(name: str) -> str:
    """Last path part of a model's name, in lower case, with single dashes for everything but a-z and 0-9."""
    last = name.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    short = re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")
    if not short:
        raise ValueError(f"model {name!r} gives an empty slug; set `slug` to a name of a-z, 0-9 and dashes")
    return short


class VLLMConfig(BaseModel):
    """A vLLM server: one that runs (`endpoint`) or one that the run starts (`launch`), never both.

    These settings are not in a feature's identity; the model that the server serves is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(
        default=None, description="address of a running server (see `sur serve`); its key is read from VLLM_API_KEY"
    )
    launch: Path | None = Field(
        default=None,
        description="Python of vLLM's environment, or the environment's folder; the run starts a server with it",
    )
    exchange: Path | None = Field(
        default=None,
        description="path here of the folder into which the server writes states, if the server has another path",
    )
    concurrency: int = Field(default=128, ge=1, description="number of prompts that are sent to the server at a time")
    timeout_seconds: float = Field(
        default=900.0, gt=0, description="longest time for the answer to one prompt, waiting on the server included"
    )
    patience_seconds: float = Field(
        default=60.0, ge=0, description="time for which requests to a failing server are repeated"
    )
    startup_seconds: float = Field(default=1800.0, gt=0, description="longest time for a server to start")
    tensor_parallel_size: int = Field(default=1, ge=1, description="number of GPUs that share the model")
    cpu_cache_gib: int = Field(
        default=2, ge=1, description="memory in GiB for keys, values and states on a machine without a GPU"
    )
    also_proven: tuple[str, ...] = Field(
        default=(),
        description="further architectures whose states you have found equal to those of transformers with "
        "`python benchmarks/vllm_parity.py FOLDER --model MODEL`",
    )
    server_args: tuple[str, ...] = Field(default=(), description="further command-line options of vLLM's server")

    @model_validator(mode="after")
    def _one_server(self) -> VLLMConfig:
        if (self.endpoint is None) == (self.launch is None):
            raise ValueError("give either `endpoint` (a running server) or `launch` (vLLM's Python, to start one)")
        if self.endpoint is not None and not re.fullmatch(r"https?://[^/]+", self.endpoint):
            raise ValueError(
                f"endpoint must be an address such as http://127.0.0.1:8000, without a path, got {self.endpoint!r}"
            )
        return self

    @property
    def python(self) -> Path:
        """The interpreter that `launch` names. Raises NotFound when there is no such file."""
        assert self.launch is not None
        for path in (self.launch, self.launch / "bin" / "python"):
            if path.is_file():
                return path
        raise NotFound(
            f"vllm.launch: {self.launch} is neither a Python interpreter nor an environment's folder; make one "
            "with `make vllm`, or give the Python in which vLLM is installed"
        )


class LLMConfig(BaseModel):
    """The LLM that reads the simple prompts: its layers, pooling and template. Each layer becomes a feature."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    backend: Literal["hf", "vllm"] = Field(
        default="hf", description="engine that runs the model: transformers in this process, or vLLM in its own"
    )
    vllm: VLLMConfig | None = Field(default=None, description="vLLM's server; needed for backend vllm")
    model: str = Field(
        description="folder, hub id, .gguf file, or package:NAME of a Python package that contains the model"
    )
    gguf_file: str | None = Field(default=None, description="name of the GGUF file inside the model's folder")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    slug: Slug | None = Field(
        default=None, description="name of the model in the features' names; default: last part of `model`"
    )
    layers: tuple[int, ...] = Field(
        description="layers whose hidden states are kept: 0 is the embeddings, the last is after the final norm"
    )
    pooling: Literal["mean", "last", "tokens"] = Field(
        default="mean",
        description="mean or tokens: of the prompt's own tokens only (no template, BOS or EOS); "
        "last: the state of the last token that the model reads (it may belong to the template)",
    )
    template: str | None = Field(
        default=None,
        description='text with "{prompt}" in it; "chat": the tokenizer\'s chat template; null: the prompt alone',
    )
    add_special_tokens: bool = Field(default=True, description="let the tokenizer add its BOS/EOS (never with chat)")
    max_tokens: int = Field(
        default=128,
        ge=1,
        le=MOST_TOKENS,
        description="longest prompt in tokens, without its template; the rest is cut off",
    )
    tokens_per_batch: int = Field(default=4096, ge=1, description="most rows x padded tokens in one batch")
    compute_dtype: FloatName = Field(default="float32", description="dtype of the weights while encoding")
    store_dtype: FloatName = Field(default="bfloat16", description="dtype of the states in the cache")
    codec: Codec | None = Field(
        default=None,
        description="codec of the values on disk; null: zstd for pooling tokens (mostly padding), else raw",
    )
    keep_bits: int = Field(default=0, ge=0, description="bits of the mantissa that are stored; 0: all")
    device: str = Field(default="auto", description="torch device; auto: CUDA when there is one")
    trust_remote_code: bool = Field(default=False, description="run Python code from the model's folder")

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
        """The slug of the model in the features' names."""
        return self.slug or slug(self.model)

    def feature_name(self, layer: int) -> str:
        """Name of the feature that holds one layer."""
        return f"llm.{self.name}.l{layer:02d}.{self.pooling}"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features, lowest layer first."""
        return tuple(self.feature_name(layer) for layer in self.layers)


class TextConfig(BaseModel):
    """The pipeline whose text encoders read the simple and the complex prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str | None = Field(default=None, description="diffusers pipeline folder or hub id; default: base_model")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    slug: Slug | None = Field(
        default=None, description="name of the model in the features' names; default: last part of `model`"
    )
    store_dtype: FloatName = Field(default="float16", description="dtype of the values in the cache")
    compute_dtype: FloatName = Field(default="float32", description="dtype of the weights while encoding")
    codec: Codec = Field(default="raw", description="codec of the values on disk; raw is the fastest to read at random")
    keep_bits: int = Field(default=0, ge=0, description="bits of the mantissa that are stored; 0: all")
    t5_tokens: int | None = Field(
        default=None,
        ge=1,
        le=MOST_TOKENS,
        description="number of states that T5 makes of a prompt (SD 3, PixArt, Flux); default: the pipeline's own. "
        "Give another number to the pipeline too, as `max_sequence_length`",
    )
    batch_size: int = Field(default=64, ge=1, description="prompts in one forward pass")
    device: str = Field(default="auto", description="torch device; auto: CUDA when there is one")

    @property
    def name(self) -> str:
        """The slug of the model in the features' names."""
        if self.slug is None and self.model is None:
            raise ValueError("text has no model: set base_model, text.model or text.slug")
        return self.slug or slug(str(self.model))

    def feature_name(self, consumes: str) -> str:
        """Name of the feature made of the "simple" or the "complex" prompts."""
        return f"text.{self.name}.{consumes}"


class VAEConfig(BaseModel):
    """The VAE that encodes the images, and the way in which images are brought to its size."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str | None = Field(default=None, description="diffusers pipeline folder or hub id; default: base_model")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    slug: Slug | None = Field(
        default=None, description="name of the model in the feature's name; default: last part of `model`"
    )
    resolution: int = Field(default=512, ge=8, le=16_384, description="side of the square image in pixels")
    crop: CropPolicy = Field(
        default="center", description="center: cut out the middle square; stretch: squeeze the image into a square"
    )
    flips: bool = Field(default=False, description="also store the latents of the mirrored image, as view 1")
    store_dtype: FloatName = Field(default="float16", description="dtype of the values in the cache")
    compute_dtype: FloatName = Field(default="float32", description="dtype of the weights (SDXL's needs float32)")
    codec: Codec = Field(default="raw", description="codec of the values on disk; raw is the fastest to read at random")
    keep_bits: int = Field(default=0, ge=0, description="bits of the mantissa that are stored; 0: all")
    batch_size: int = Field(default=8, ge=1, description="images in one forward pass")
    device: str = Field(default="auto", description="torch device; auto: CUDA when there is one")

    @property
    def name(self) -> str:
        """The slug of the model in the features' names."""
        if self.slug is None and self.model is None:
            raise ValueError("vae has no model: set base_model, vae.model or vae.slug")
        return self.slug or slug(str(self.model))

    @property
    def feature_name(self) -> str:
        """Name of the one feature."""
        return f"vae.{self.name}.{self.resolution}"


class ReadoutConfig(BaseModel):
    """The sample of the denoiser's queries that the read-out stores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries_per_layer: int = Field(
        default=2048, ge=1, description="number of queries stored for each cross-attention layer"
    )
    rows: int = Field(
        default=512, ge=1, description="number of rows whose latents and complex prompts the denoiser reads"
    )
    seed: int = Field(default=0, description="seed of timesteps, noise and the choice of queries")
