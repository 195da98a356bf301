"""Flow `sweep`: train every run of a sweep on one store, evaluate them if asked to, and compare them."""

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from sur.config.run import RunConfig
from sur.config.run_folder import RunFolder
from sur.evaluation import Subject
from sur.evaluation.report.report import write_report
from sur.evaluation.results import adapter_scores
from sur.flows.pipeline import evaluate_adapter
from sur.flows.train import fit_adapter
from sur.training.sweep.report import write_comparison
from sur.training.sweep.runs import Outcome, SweepRun, run_sweep


@flow(name="sweep", persist_result=False)
def sweep(config: RunConfig, runs: list[SweepRun], evaluate: bool = False) -> list[Outcome]:
    """Train every run and write a comparison to <run_dir>/sweep; returns the outcome of each run."""
    outcomes = run_sweep(runs, fit_adapter, _score if evaluate else None)
    compared = write_comparison(RunFolder(config.run_dir).sweep, outcomes)
    create_markdown_artifact(compared.read_text(encoding="utf-8"), key="sweep")
    return outcomes


def _score(config: RunConfig, adapter: Path) -> dict[str, float]:
    evaluation = evaluate_adapter(config, adapter)
    write_report(Subject.of_run(config, adapter), evaluation, config)
    return adapter_scores(evaluation)
