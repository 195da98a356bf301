"""Flow `pipeline`: extract, train, evaluate, report."""

import sys

if __name__ == "__main__":  # Prefect reads its environment at import: the launcher has to come first
    from flows.launch import main

    sys.exit(main("pipeline"))

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.extract import extract
from flows.progress import flow_progress
from flows.train import train
from sur.config import RunConfig
from sur.evaluate import Evaluation
from sur.report import write_report


@task(name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate_adapter(config: RunConfig, adapter: Path) -> Evaluation:
    """Generate and score pictures with and without the adapter, unless that is done already."""
    from sur.evaluate import evaluate, kept_evaluation, pictures_of

    if (kept := kept_evaluation(config, adapter)) is not None:
        return kept
    with flow_progress("evaluate", pictures_of(config.evaluate), "pictures") as progress:
        return evaluate(config, adapter, on_pictures=progress.advance)


@flow(name="pipeline", persist_result=False)
def pipeline(config: RunConfig) -> Path:
    """The whole way from rows to a report; returns the report's path, or the adapter's without `evaluate.sets`."""
    extract(config)
    adapter = train(config)
    if not config.evaluate.sets:
        return adapter
    evaluation = evaluate_adapter(config, adapter)
    report = write_report(config, evaluation)
    create_markdown_artifact(f"Report: `{report}`", key="report")
    return report
