"""The result of a probe: scores with their intervals, as JSON, and the settings that follow from them."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel

from sur.config.probe import ProbeConfig
from sur.evaluation.statistics import Interval
from sur.support.files import write_text

FILE_STEM = "probe"  # of probe.json and of the plots beside it
RIVAL_SHARE = 0.025  # share of the resamples in which a candidate that is not the best gains most
Inputs = str  # "text", "llm" or "both"
CandidateKey = tuple[str, str]  # a candidate's feature and pooling, which no two have in common


class HeldOutScores(BaseModel):
    """How well the target of held-back rows is predicted, from the text encoder's vector, the LLM's, or both.

    r2: share of the target's variance. gain: r2 from both less r2 from the text encoder alone. retrieval: share of rows
    whose own complex prompt is nearest to the prediction, of all that were judged in a fold (`gallery` on average).
    Candidates are ranked by their gain, as adapters trained on pooled vectors are (docs/probe.md).
    known (split "words" only): fraction of the text encoder's error on held-back words that this candidate removes.
    The error on a word is the mean of its rows' errors, in which the rest of the prompts averages out. A low error
    from the LLM alone proves nothing: a model that ignores a new word errs less than one that guesses wrongly.
    first: share of the resamples in which no other candidate gains more. units: words or groups that were resampled.
    """

    rows: int
    units: int
    gallery: float
    r2: dict[Inputs, Interval]
    retrieval: dict[Inputs, Interval]
    gain: Interval
    known: dict[Inputs, Interval] = {}
    first: float = 0.0


class CandidateScores(BaseModel):
    """One candidate and its scores by split. cka: of its vector with the target, over all rows."""

    name: str
    feature: str
    model: str
    layer: int
    stored: str
    pooling: str
    cka: Interval
    held: dict[str, HeldOutScores]

    @property
    def key(self) -> CandidateKey:
        """Feature and pooling, which tell the candidate from all others."""
        return self.feature, self.pooling


class ProbeResult(BaseModel):
    """Scores of all candidates of a store.

    ranked_on: the split whose gain decides. noise: the scores of random numbers in a candidate's place, since any
    input beside the text encoder's vector is one more way to shrink the latter. best: key of the candidate of the
    largest gain, None where that gain is not clearly above the noise.
    """

    store: str
    text: str
    target: str
    rows: int
    settings: ProbeConfig
    text_cka: Interval
    ranked_on: str
    noise: dict[str, HeldOutScores]
    candidates: list[CandidateScores]
    best: CandidateKey | None

    def ranked(self) -> list[CandidateScores]:
        """Candidates, the largest gain first."""
        return sorted(self.candidates, key=lambda candidate: -candidate.held[self.ranked_on].gain.value)

    def winner(self) -> CandidateScores | None:
        """The candidate that `best` names."""
        return next((candidate for candidate in self.candidates if candidate.key == self.best), None)


def best_of(candidates: list[CandidateScores], noise: HeldOutScores, split: str) -> CandidateKey | None:
    """Key of the candidate of the largest gain; None when its interval reaches that of the noise, or zero."""
    first = max(candidates, key=lambda candidate: candidate.held[split].gain.value)
    return first.key if first.held[split].gain.low > max(0, noise.gain.high) else None


def rivals(result: ProbeResult) -> list[str]:
    """Names of the candidates besides the best one that gain most in at least 2.5 % of the resamples."""
    split = result.ranked_on
    return [c.name for c in result.ranked() if c.key != result.best and c.held[split].first >= RIVAL_SHARE]


def recommended(result: ProbeResult) -> list[str]:
    """Settings, `section.key=value` each: the best candidate's layer, or no distillation where none gains anything."""
    winner = result.winner()
    if winner is None:
        return ["loss.distillation.form=none"]
    return [
        f"llm.slug={winner.model}",
        f"llm.layers=[{winner.layer}]",
        f"llm.pooling={winner.stored}",
        f"loss.distillation.layer={winner.layer}",
    ]


def caution(result: ProbeResult) -> str:
    """A warning about the recommendation; "" when the probe ranks as trainings do (docs/probe.md)."""
    winner = result.winner()
    if winner is None or winner.stored != "tokens":
        return ""
    return (
        "a teacher reads every token, the probe one vector of them: which layer of token states is best is for "
        "`sur sweep` to say (docs/probe.md)"
    )


def write_probe_result(folder: Path, result: ProbeResult) -> Path:
    """Write probe.json into `folder`, all or nothing; returns its path."""
    return write_text(folder / f"{FILE_STEM}.json", as_json(result) + "\n")


def as_json(result: ProbeResult) -> str:
    """The result as JSON; a number that is not known is null."""
    return result.model_dump_json(indent=2)


def format_interval(interval: Interval, digits: int = 3) -> str:
    """ "0.123 [0.100, 0.145]"; "" for a value that is not known."""
    if not math.isfinite(interval.value):
        return ""
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
