"""A build's whole configuration: which pictures or prompts, what is cleaned, who writes what is missing, what stays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sur.build.captions import CaptionConfig
from sur.build.cleaning import CleaningConfig
from sur.build.filters import FiltersConfig
from sur.build.rewriting import RewriteConfig
from sur.build.sources import SourceConfig
from sur.build.text_log import kept_texts
from sur.settings import load_settings

DATA = "data"


class BuildConfig(BaseModel):
    """Everything that a build depends on; each section is documented beside its owner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    FOREIGN: ClassVar = ("data", "source", "this is the file of a run; a build's has a section `source`")

    run_dir: Path = Field(description="folder of the build; the rows are in its folder `data`, for data.path")
    source: SourceConfig = Field(description="pictures, or prompts")
    cleaning: CleaningConfig = Field(default_factory=CleaningConfig, description="how complex prompts are cleaned")
    captions: CaptionConfig | None = Field(default=None, description="model that writes narratives of pictures")
    rewriting: RewriteConfig | None = Field(default=None, description="LLM that writes one prompt from the other")
    filters: FiltersConfig = Field(default_factory=FiltersConfig, description="which rows stay")
    keep_unpaired: bool = Field(
        default=False, description="keep narratives without a complex prompt (data.allow_unpaired reads them)"
    )

    @property
    def data_dir(self) -> Path:
        """The SURD folder that is built."""
        return self.run_dir / DATA

    @property
    def has_pictures(self) -> bool:
        """Whether candidates may have pictures."""
        return self.source.pictures is not None or self.source.picture_column is not None

    def kept(self) -> list[str]:
        """What a run that is stopped leaves for the next."""
        count = kept_texts(self.run_dir)
        return [f"{count} texts that models wrote, in {self.run_dir}"] if count else []

    @model_validator(mode="after")
    def _every_text_has_a_writer(self) -> BuildConfig:
        if self.captions is not None and not self.has_pictures:
            raise ValueError("captions describe pictures, and the source has none; set source.pictures or leave it out")
        writes = self.rewriting.writes if self.rewriting is not None else ()
        holds_simple = self.source.prompts is not None and self.source.holds == "simple"
        if not holds_simple and self.captions is None and "simple" not in writes:
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
    """Read a build's YAML file, with overrides. Raises: ConfigError as sur.settings.load_settings."""
    return load_settings(BuildConfig, path, overrides)
