"""Flow `build`: rows from pictures or prompts, one task a stage."""

import sys
from pathlib import Path

if __name__ == "__main__":  # Prefect reads its environment at import: the launcher has to come first
    from sur.config.curation import load_build_config
    from sur.flows.runtime.launch import main

    sys.exit(main("build", load_build_config))

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from sur.config.curation import BuildConfig
from sur.config.load import save_config
from sur.data.curation.collect import collect
from sur.data.curation.draft import BuildDraft
from sur.data.curation.generate import caption, rewrite
from sur.data.curation.rows_folder import BuildSummary, write_rows
from sur.flows.runtime.progress import flow_progress


@task(name="collect", cache_policy=NO_CACHE, persist_result=False)
def collect_candidates(config: BuildConfig) -> Path:
    """Read the source and the pictures' metadata, and clean the prompts; returns the draft's file."""
    return collect(config, flow_progress).save(config.run_dir)


@task(name="caption", cache_policy=NO_CACHE, persist_result=False)
def caption_pictures(config: BuildConfig, draft: Path) -> Path:
    """Have a caption model describe the pictures that have no narrative; returns the draft's file."""
    return caption(config, BuildDraft.read(draft), flow_progress).save(config.run_dir)


@task(name="rewrite", cache_policy=NO_CACHE, persist_result=False)
def rewrite_prompts(config: BuildConfig, draft: Path) -> Path:
    """Have an LLM write each row's missing prompt from the other one; returns the draft's file."""
    return rewrite(config, BuildDraft.read(draft), flow_progress).save(config.run_dir)


@task(name="write", cache_policy=NO_CACHE, persist_result=False)
def write_folder(config: BuildConfig, draft: Path) -> BuildSummary:
    """Write the SURD folder and the list of rows left out, and remove the draft's file; returns the counts."""
    summary = write_rows(config, BuildDraft.read(draft), flow_progress)
    draft.unlink()
    return summary


@flow(name="build", persist_result=False)
def build(config: BuildConfig) -> BuildSummary:
    """Build a SURD folder in <run_dir>/data; returns its number of rows, and how many were left out for each reason."""
    save_config(config)
    draft = collect_candidates(config)
    if config.captions is not None:
        draft = caption_pictures(config, draft)
    if config.rewriting is not None:
        draft = rewrite_prompts(config, draft)
    summary = write_folder(config, draft)
    table = [{"what": "rows", "count": str(summary.rows)}]
    table += [{"what": f"left out: {name}", "count": str(count)} for name, count in summary.left_out.items()]
    create_table_artifact(table, key="build", description="What this build came to")
    return summary
