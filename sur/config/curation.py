"""The whole configuration of a build: source, cleaning, the models that write missing texts, filters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sur.config.build_folder import BuildFolder
from sur.config.features import FloatName, VLLMConfig
from sur.config.load import OtherFile, load_settings

TO_SIMPLE = """Write one plain English sentence that says what the picture shows. Keep every person, animal, thing, \
number and colour. Leave out words about style, quality, camera and artists.

Keywords: portrait of an old fisherman, white beard, yellow raincoat, harbour, foggy morning, 85mm, highly detailed, 8k
Sentence: An old fisherman with a white beard and a yellow raincoat stands in the harbour on a foggy morning.

Keywords: two red foxes, snowy forest, sunset, digital painting, artstation, sharp focus
Sentence: Two red foxes are in a snowy forest at sunset.

Keywords: {prompt}
Sentence:"""


TO_COMPLEX = """Write the keywords that an artist would give a text-to-image program for the sentence: what is there, \
then where, then light, style and quality, separated by commas.

Sentence: An old fisherman with a white beard and a yellow raincoat stands in the harbour on a foggy morning.
Keywords: portrait of an old fisherman, white beard, yellow raincoat, harbour, foggy morning, soft light, \
highly detailed

Sentence: Two red foxes are in a snowy forest at sunset.
Keywords: two red foxes, snowy forest, sunset, warm light, digital painting, sharp focus

Sentence: {prompt}
Keywords:"""


Dialect = Literal["a1111", "comfyui", "invokeai", "midjourney", "plain"]


Side = Literal["simple", "complex"]


ASKED = "Describe this picture in one short, plain sentence."  # the instruction of chat models


class GenerationConfig(BaseModel):
    """The decoding of a model's texts.

    All of it is in a text's identity: other settings write all texts anew and keep the old ones in the log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(default=80, ge=1, description="longest text in tokens")
    temperature: float = Field(default=0.0, ge=0, description="0: always the most likely token; above 0: sampled")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sampling draws from the most likely tokens that make up this probability"
    )
    repetition_penalty: float = Field(
        default=1.0, gt=0, description="divisor of the scores of tokens that occurred before; 1: none"
    )
    num_beams: int = Field(default=1, ge=1, description="number of beams of the search; backend hf only")
    seed: int = Field(default=0, ge=0, description="seed of sampling; each batch gets its own seed from it")


class CaptionConfig(GenerationConfig):
    """The model that describes pictures."""

    model: str = Field(description="folder or hub id, such as Salesforce/blip-image-captioning-base")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    instruction: str | None = Field(
        default=None, description=f'question to chat models (default: "{ASKED}"), or the beginning of every caption'
    )
    max_new_tokens: int = Field(default=40, ge=1, description="longest caption in tokens")
    batch_size: int = Field(default=8, ge=1, description="pictures in one batch")
    compute_dtype: FloatName = Field(default="float32", description="dtype of the weights")
    device: str = Field(default="auto", description="torch device; auto: CUDA when there is one")


class RewriteConfig(GenerationConfig):
    """The LLM that rewrites prompts."""

    backend: Literal["hf", "vllm"] = Field(
        default="hf", description="hf: transformers in this process; vllm: a vLLM server"
    )
    vllm: VLLMConfig | None = Field(default=None, description="vLLM's server; needed for backend vllm")
    model: str = Field(
        description="folder, hub id, .gguf file, or package:NAME of a Python package that contains the model"
    )
    gguf_file: str | None = Field(default=None, description="name of the GGUF file inside the model's folder")
    revision: str | None = Field(default=None, description="hub revision (branch, tag or commit)")
    writes: tuple[Side, ...] = Field(
        default=("simple",),
        description="the missing prompts that the LLM writes, each from the other one: simple, complex or both",
    )
    to_simple: str = Field(
        default=TO_SIMPLE, description='instruction with "{prompt}" in it that turns a complex prompt into a narrative'
    )
    to_complex: str = Field(
        default=TO_COMPLEX, description='instruction with "{prompt}" in it that turns a narrative into a complex prompt'
    )
    template: str | None = Field(
        default="chat",
        description='text with "{prompt}" for the instruction; "chat": the chat template of the tokenizer; null: none',
    )
    max_prompt_tokens: int = Field(
        default=1024, ge=16, description="longest instruction in tokens; prompts that need a longer one are left out"
    )
    tokens_per_batch: int = Field(default=4096, ge=1, description="hf: most rows x padded tokens in one batch")
    compute_dtype: FloatName = Field(default="float32", description="dtype of the weights")
    device: str = Field(default="auto", description="hf: torch device; auto: CUDA when there is one")
    trust_remote_code: bool = Field(default=False, description="run Python code from the model's folder")

    @field_validator("to_simple", "to_complex", "template")
    @classmethod
    def _names_prompt(cls, text: str | None) -> str | None:
        if text not in (None, "chat") and text.count("{prompt}") != 1:
            raise ValueError(f'must hold "{{prompt}}" once, got {text[:60]!r}')
        return text

    @model_validator(mode="after")
    def _backend_fits(self) -> RewriteConfig:
        if self.backend == "vllm" and self.vllm is None:
            raise ValueError("backend is vllm, but there is no section vllm; set vllm.endpoint or vllm.launch")
        if self.backend == "vllm" and self.num_beams > 1:
            raise ValueError("num_beams is for backend hf; set it to 1")
        return self


class SourceConfig(BaseModel):
    """Either a folder of pictures or a file of prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: Path | None = Field(default=None, description="folder of pictures, subfolders included")
    prompts: Path | None = Field(
        default=None, description="prompts: .txt (one a line), or any source of rows: .jsonl, .csv, Parquet, a folder"
    )
    prompt_column: str = Field(default="prompt", description="column of the prompts")
    picture_column: str | None = Field(
        default=None, description="column of the prompts' pictures; null: they have none"
    )
    holds: Literal["complex", "simple"] = Field(
        default="complex", description="kind of the prompts in the file: complex or simple"
    )
    metadata: Literal["read", "required", "ignored"] = Field(
        default="read",
        description="use of the prompts that generators left in pictures; required: pictures without one are left out",
    )
    captions_beside: Literal["ignored", "complex", "simple"] = Field(
        default="ignored",
        description="kind of the captions in files beside the pictures (fox.txt or fox.caption for fox.png), which "
        "precede the metadata; ignored: they are not read",
    )
    max_image_bytes: int = Field(
        default=256 * 2**20, ge=1, description="largest picture file in bytes; a larger one is not read"
    )

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        if (self.pictures is None) == (self.prompts is None):
            raise ValueError("give either `pictures` (a folder) or `prompts` (a file)")
        if self.pictures is not None and self.picture_column is not None:
            raise ValueError("picture_column is for a file of prompts that names pictures, not for a folder of them")
        if self.prompts is not None and self.captions_beside != "ignored":
            raise ValueError("captions_beside is for a folder of pictures, not for a file of prompts")
        return self

    @property
    def path(self) -> Path:
        """The folder or file."""
        found = self.pictures or self.prompts
        assert found is not None
        return found.expanduser()


class CleaningConfig(BaseModel):
    """The cleaning of complex prompts; the prompt as written stays in the provenance."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialect: Dialect = Field(
        default="a1111", description="syntax of prompts that no tool's metadata names; plain: nothing is parsed"
    )
    all_choices: bool = Field(default=False, description="keep every alternative of [a|b] and {a|b}, not the first")
    drop_quality_tags: bool = Field(
        default=False, description="leave out score_9, masterpiece, best quality, 8k and the like"
    )
    drop_repeated: bool = Field(
        default=True, description="leave out a part between commas that occurred before in the prompt"
    )
    drop_parts: tuple[str, ...] = Field(
        default=(), description="parts between commas that are left out, exactly as written"
    )
    underscores: bool = Field(default=False, description="read long_hair as long hair, for prompts made of booru tags")


class FiltersConfig(BaseModel):
    """The conditions that a row has to meet. Words of Chinese, Japanese and Korean are counted by characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_simple_words: int = Field(default=3, ge=1, description="fewest words of a narrative")
    max_simple_words: int = Field(default=60, ge=1, description="most words of a narrative")
    min_complex_words: int = Field(default=2, ge=1, description="fewest words of a complex prompt")
    max_complex_words: int = Field(default=250, ge=1, description="most words of a complex prompt")
    languages: tuple[str, ...] = Field(
        default=(),
        description="languages of the texts as ISO 639-1 codes such as en; (): any; needs `pip install py3langid`",
    )
    min_language_share: float = Field(
        default=0.05, ge=0, le=1, description="probability of those languages below which a text is left out"
    )
    duplicates: bool = Field(
        default=True, description="leave out rows of the same picture and words, whatever their case and commas"
    )
    min_image_side: int = Field(default=64, ge=1, description="smallest shorter side of a picture in pixels")
    max_image_pixels: int = Field(default=64_000_000, ge=1, le=178_956_970, description="largest picture in pixels")
    min_image_deviation: float = Field(
        default=2.0,
        ge=0,
        description="standard deviation of a picture's grey levels (0 to 255) below which it counts as blank",
    )
    forbidden_words: tuple[str, ...] = Field(default=(), description="words or phrases that no prompt may contain")
    forbidden_file: Path | None = Field(
        default=None, description="file with more forbidden words or phrases, one a line"
    )
    min_kept_share: float = Field(
        default=0.3, ge=0, le=1, description="smallest share of a prompt's content words that its rewrite must have"
    )
    min_grounded_share: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="smallest share of a rewritten narrative's content words that its prompt must have",
    )
    max_repeated_share: float = Field(
        default=0.2, ge=0, le=1, description="largest share of repeated runs of three words in a model's text"
    )
    keep_unfinished: bool = Field(
        default=False, description="keep a model's text that max_new_tokens cut off before its end"
    )


class BuildConfig(BaseModel):
    """Everything that a build depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    OTHER_FILE: ClassVar = OtherFile(
        has="data", lacks="source", hint="this is the file of a run; a build's has a section `source`"
    )

    run_dir: Path = Field(
        description="folder of the build; the rows are in its subfolder `data`, for data.path of a run"
    )
    source: SourceConfig = Field(description="the pictures or prompts to start from")
    cleaning: CleaningConfig = Field(default_factory=CleaningConfig, description="the cleaning of complex prompts")
    captions: CaptionConfig | None = Field(
        default=None, description="the model that writes narratives of pictures; null: none"
    )
    rewriting: RewriteConfig | None = Field(
        default=None, description="the LLM that writes one prompt from the other; null: none"
    )
    filters: FiltersConfig = Field(default_factory=FiltersConfig, description="the conditions for a row to be kept")
    keep_unpaired: bool = Field(
        default=False, description="keep narratives without a complex prompt (data.allow_unpaired reads them)"
    )

    @property
    def data_dir(self) -> Path:
        """The SURD folder that is built."""
        return BuildFolder(self.run_dir).data

    @property
    def has_pictures(self) -> bool:
        """Whether the source has pictures."""
        return self.source.pictures is not None or self.source.picture_column is not None

    @model_validator(mode="after")
    def _every_text_has_a_writer(self) -> BuildConfig:
        if self.captions is not None and not self.has_pictures:
            raise ValueError("captions describe pictures, and the source has none; set source.pictures or leave it out")
        writes = self.rewriting.writes if self.rewriting is not None else ()
        holds_simple = self.source.prompts is not None and self.source.holds == "simple"
        has_simple = holds_simple or self.source.captions_beside == "simple"
        if not has_simple and self.captions is None and "simple" not in writes:
            raise ValueError(
                "nothing writes the narratives: add `captions` (a model that describes pictures), or `rewriting` (an "
                "LLM) with writes: [simple]"
            )
        if holds_simple and "complex" not in writes and not self.keep_unpaired:
            raise ValueError(
                "nothing writes the complex prompts of these narratives: add `rewriting` with writes: [complex], or "
                "set keep_unpaired"
            )
        return self


def load_build_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> BuildConfig:
    """Read a build's YAML file, with overrides. Raises: ConfigError as sur.config.load.load_settings."""
    return load_settings(BuildConfig, path, overrides)
