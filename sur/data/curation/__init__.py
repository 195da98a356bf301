"""Rows from the pictures and prompts that people have: metadata read, prompts cleaned, missing texts written."""

from sur.config.curation import BuildConfig, load_build_config
from sur.data.curation.rows_folder import BuildSummary
from sur.data.curation.run import build_rows

__all__ = ["BuildConfig", "BuildSummary", "build_rows", "load_build_config"]
