"""Flow `nightly`: encode new rows; if there are enough, train a candidate, evaluate it, promote it if it is better."""

import sys

if __name__ == "__main__":  # Prefect reads its environment at import: the launcher has to come first
    from sur.flows.runtime.launch import main

    sys.exit(main("nightly"))

from dataclasses import dataclass

from prefect import flow, tags
from prefect.artifacts import create_markdown_artifact

from sur.config.run import RunConfig
from sur.config.run_folder import RunFolder
from sur.evaluation.promotion import (
    Verdict,
    abandon_candidate,
    judge_candidate,
    next_candidate,
    promoted_name,
    read_verdicts,
    record_verdict,
)
from sur.evaluation.results import Single, read_singles
from sur.flows.extract import extract
from sur.flows.pipeline import evaluate_adapter
from sur.flows.runtime.tag import TAG
from sur.flows.train import train
from sur.support.errors import ConfigError


@dataclass(frozen=True)
class Night:
    """What a night did.

    partitions: number that this night computed. waiting: number of new rows, when they were too few to train on.
    """

    rows: int
    partitions: int
    waiting: int | None
    verdict: Verdict | None


@flow(name="nightly", persist_result=False)
def nightly(config: RunConfig) -> Night:
    """Bring the store up to date, then the adapter in use, to which the link <run_dir>/promoted points."""
    with tags(TAG):
        done = extract(config)
    candidate = next_candidate(config)
    if isinstance(candidate, int):
        night = Night(int(done["rows"]), int(done["partitions"]), candidate, None)
    else:
        try:
            with tags(TAG):
                adapter = train(candidate.config)
        except ConfigError as error:  # the checkpoints belong to other settings; no later night could go on from them
            abandon_candidate(candidate, error)
            raise
        evaluation = evaluate_adapter(candidate.config, adapter)
        verdict = judge_candidate(
            candidate, evaluation, read_singles(candidate.config.run_dir), _in_use(candidate.config)
        )
        record_verdict(config.run_dir, verdict)
        night = Night(int(done["rows"]), int(done["partitions"]), None, verdict)
    create_markdown_artifact(_summary(config, night), key="nightly", description="What the night did")
    return night


def _in_use(config: RunConfig) -> list[Single] | None:
    """Scores of the promoted adapter for the prompts of a candidate's settings; None before the first promotion."""
    folder = RunFolder(config.run_dir.parents[1]).promoted
    if not folder.is_symlink():
        return None
    adapter = folder.resolve()
    evaluate_adapter(config.model_copy(update={"run_dir": adapter.parent}), adapter)
    return read_singles(adapter.parent)


def _summary(config: RunConfig, night: Night) -> str:
    """Markdown: what the night did, and a table of every candidate so far."""
    need = config.promote.min_new_rows
    if night.verdict is None:
        head = f"{night.waiting} new rows of the {need} that make a training worth it: **nothing was trained**."
    else:
        head = f"Candidate {night.verdict.candidate}: **{'promoted' if night.verdict.promoted else 'not promoted'}**."
    lines = [
        f"{night.rows} rows in the store, {night.partitions} partitions computed. {head}",
        f"In use: {promoted_name(config.run_dir) or 'no adapter yet'}.",
        "",
        "| candidate | rows | new | judged by | against | gain a prompt, 95 % | promoted | why not |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for verdict in reversed(read_verdicts(config.run_dir)):
        value, low, high = verdict.gain
        judged, promoted = f"{verdict.scorer}, {verdict.prompts} prompts", "yes" if verdict.promoted else "no"
        cells = (
            verdict.candidate,
            verdict.rows,
            verdict.new_rows,
            judged,
            verdict.against,
            f"{value:+.3f} [{low:+.3f}, {high:+.3f}]",
            promoted,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
