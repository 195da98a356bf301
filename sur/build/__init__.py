"""Rows from what people have: pictures, prompts, pictures that generators made."""

from sur.build.collecting import collect
from sur.build.config import BuildConfig, load_build_config
from sur.build.making import caption, rewrite
from sur.build.rows_folder import BuildSummary, write_rows
from sur.build.run import build

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
