"""The settings of a data source: its place, its format, the columns of prompts and images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DataConfig(BaseModel):
    """A data source: SURD folder, Parquet, CSV, JSON lines or a Hugging Face dataset on disk.

    The defaults are SURD's: `text` is the simple narrative prompt, `prompt` the complex keyword prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(description="folder or file with the rows; nothing outside its folder is ever read")
    slug: str = Field(
        default="data", pattern=r"^[a-z0-9][a-z0-9._-]*$", description="name of this data set in the store"
    )
    format: Literal["auto", "surd", "parquet", "csv", "jsonl", "hf"] = Field(
        default="auto", description="format of the rows; auto: by the file names"
    )
    split: str | None = Field(
        default=None,
        description="part of the rows to read: a split of a Hugging Face DatasetDict, a folder in data.path, or files "
        "whose names begin with it; default: the only split, or all files",
    )
    simple_column: str = Field(default="text", description="column of the simple narrative prompt")
    complex_column: str | None = Field(
        default="prompt", description="column of the complex prompt; null: there is none"
    )
    image_column: str | None = Field(default="file_name", description="column of the image; null: text only")
    allow_unpaired: bool = Field(default=False, description="keep rows that have no complex prompt")
    allow_outside_links: bool = Field(default=False, description="follow symbolic links out of the data root")
    max_image_pixels: int = Field(
        default=64_000_000,
        ge=1,
        le=178_956_970,
        description="largest image in pixels; larger ones are quarantined undecoded",
    )
    max_image_bytes: int = Field(
        default=256 * 2**20, ge=1, description="largest image file in bytes; a larger one is not read"
    )
    max_prompt_chars: int = Field(
        default=20_000, ge=1, description="longest prompt in characters; a longer one is quarantined"
    )
    check_images: Literal["decode", "header"] = Field(
        default="decode", description="how images are checked: decode every pixel, or read the header only"
    )
    exclude: Path | None = Field(
        default=None, description="file of row ids (`sur lint --write`) that extraction and training leave out"
    )
    limit: int | None = Field(default=None, ge=1, description="read at most this many rows")
