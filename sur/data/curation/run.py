"""A whole build, from source to folder, in one process and without Prefect; the flow runs the same stages as tasks."""

from __future__ import annotations

from sur.config.curation import BuildConfig
from sur.config.load import save_config
from sur.data.curation.collect import collect
from sur.data.curation.draft import ProgressMaker
from sur.data.curation.generate import caption, rewrite
from sur.data.curation.rows_folder import BuildSummary, write_rows
from sur.support.progress import Progress


def build_rows(config: BuildConfig, progress: ProgressMaker = Progress) -> BuildSummary:
    """Read the source, caption, rewrite and write the rows; texts that models wrote before are not written again.

    Raises: NotFound, ConfigError for a source or model that is not usable.
    """
    save_config(config)
    draft = collect(config, progress)
    draft = caption(config, draft, progress)
    draft = rewrite(config, draft, progress)
    return write_rows(config, draft, progress)
