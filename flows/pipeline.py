"""Flow `pipeline`: extract, train, evaluate, report."""

import sys

if __name__ == "__main__":  # Prefect reads its environment at import: the launcher has to come first
    from sur.flows.runtime.launch import main

    sys.exit(main("pipeline"))

from pathlib import Path

from prefect import flow, tags, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from sur.config.run import RunConfig
from sur.evaluation import Evaluation, Subject
from sur.evaluation.report.report import write_report
from sur.flows.extract import extract
from sur.flows.runtime.progress import flow_progress
from sur.flows.runtime.tag import TAG
from sur.flows.train import train


@task(name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate_adapter(config: RunConfig, adapter: Path) -> Evaluation:
    """Scores of pictures with and without the adapter; an evaluation of the same adapter is not repeated."""
    from sur.evaluation import evaluate, kept_evaluation
    from sur.evaluation.drawing import pictures_of
    from sur.evaluation.prompts.sets import prompt_sets

    subject = Subject.of_run(config, adapter)
    if (kept := kept_evaluation(subject)) is not None:
        return kept
    total = pictures_of(subject, prompt_sets(config.evaluate))
    with flow_progress("evaluate", total, "pictures") as progress:
        return evaluate(subject, on_pictures=progress.advance)


@flow(name="pipeline", persist_result=False)
def pipeline(config: RunConfig) -> Path:
    """From rows to a report; returns the report's path, or the adapter's folder when nothing is evaluated."""
    with tags(TAG):
        extract(config)
        adapter = train(config)
    if not config.evaluate.asked:
        return adapter
    evaluation = evaluate_adapter(config, adapter)
    report = write_report(Subject.of_run(config, adapter), evaluation, config)
    create_markdown_artifact(f"Report: `{report}`", key="report")
    return report
