"""Rows from what people have: pictures, prompts, pictures that generators made."""

from sur.config.curation import BuildConfig, load_build_config
from sur.data.curation.collect import collect
from sur.data.curation.generate import caption, rewrite
from sur.data.curation.rows_folder import BuildSummary, write_rows
from sur.data.curation.run import build

__all__ = [
    "BuildConfig",
    "BuildSummary",
    "build",
    "caption",
    "collect",
    "load_build_config",
    "rewrite",
    "write_rows",
]
