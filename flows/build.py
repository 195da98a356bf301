"""Flow `build`: rows from pictures or prompts, one task a stage."""

import sys

if __name__ == "__main__":  # Prefect reads its environment at import: the launcher has to come first
    from flows.launch import main
    from sur.build.config import load_build_config

    sys.exit(main("build", load_build_config))

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.progress import flow_progress
from sur.build import BuildConfig, BuildSummary, caption, collect, rewrite, write_rows
from sur.build.draft import Draft
from sur.config import save_config


@task(name="collect", cache_policy=NO_CACHE, persist_result=False)
def collect_candidates(config: BuildConfig) -> Draft:
    """Read the source, the pictures' metadata, and clean the prompts."""
    return collect(config, flow_progress)


@task(name="caption", cache_policy=NO_CACHE, persist_result=False)
def caption_pictures(config: BuildConfig, draft: Draft) -> Draft:
    """Have a caption model describe the pictures that have no narrative."""
    return caption(config, draft, flow_progress)


@task(name="rewrite", cache_policy=NO_CACHE, persist_result=False)
def rewrite_prompts(config: BuildConfig, draft: Draft) -> Draft:
    """Have an LLM write the prompts that are missing from those that are there."""
    return rewrite(config, draft, flow_progress)


@task(name="write", cache_policy=NO_CACHE, persist_result=False)
def write_folder(config: BuildConfig, draft: Draft) -> BuildSummary:
    """Write the SURD folder and what was left out."""
    return write_rows(config, draft, flow_progress)


@flow(name="build", persist_result=False)
def build(config: BuildConfig) -> BuildSummary:
    """Build a SURD folder in <run_dir>/data; returns how many rows it has, and what was left out why."""
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
