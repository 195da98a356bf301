"""A whole build, from source to folder, in one process and without Prefect."""

from __future__ import annotations

from sur.build.collecting import collect
from sur.build.config import BuildConfig
from sur.build.draft import ProgressMaker
from sur.build.making import caption, rewrite
from sur.build.rows_folder import BuildSummary, write_rows
from sur.progress import Progress
from sur.settings import save_config


def build(config: BuildConfig, progress: ProgressMaker = Progress) -> BuildSummary:
    """Read, caption, rewrite, write; what models have written before is not written again.

    Raises: FileNotFoundError, ConfigError for a source or model that is not usable.
    """
    save_config(config)
    draft = collect(config, progress)
    draft = caption(config, draft, progress)
    draft = rewrite(config, draft, progress)
    return write_rows(config, draft, progress)
