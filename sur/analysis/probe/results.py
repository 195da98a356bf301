"""What a probe found: numbers with their intervals, as JSON, and what to write into a config."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel

from sur.config.probe import ProbeConfig
from sur.evaluation.statistics import Interval

NAME = "probe"
RIVAL = 0.025  # share of the resamples in which a candidate that is not the best gains most
Inputs = str  # "text", "llm" or "both"
Key = tuple[str, str]  # a candidate's feature and pooling, which no two have in common


class Held(BaseModel):
    """How well the target of held-back rows is predicted, from the text encoder's vector, the LLM's, or both.

    r2: share of the target's variance. gain: r2 from both less r2 from the text encoder alone. retrieval: share of rows
    whose own complex prompt is nearest to the prediction, of all that were judged in a fold (`gallery` on average).
    Candidates are ranked by their gain, as adapters trained on pooled vectors are (docs/probe.md).
    known (words only): share of the error about the held-back words that is not there. The error about a word is the
    mean of its rows' errors, in which the rest of the prompts averages out; that of the text encoder alone is 1. From
    the LLM alone it is no proof of knowledge: who says nothing of a new word errs less than who guesses at it.
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


class Measured(BaseModel):
    """One candidate. cka: of its vector with the target, over all rows."""

    name: str
    feature: str
    model: str
    layer: int
    stored: str
    pooling: str
    cka: Interval
    held: dict[str, Held]

    @property
    def key(self) -> Key:
        """What tells it from all others."""
        return self.feature, self.pooling


class Findings(BaseModel):
    """A whole probe. `ranked_on`: the split whose gain decides. `noise`: what random numbers in a candidate's place
    reach, since anything beside the text encoder's vector is one more way to shrink it. `best`: feature and pooling of
    the largest gain, None where it is not clearly above that."""

    store: str
    text: str
    target: str
    rows: int
    settings: ProbeConfig
    text_cka: Interval
    ranked_on: str
    noise: dict[str, Held]
    candidates: list[Measured]
    best: Key | None

    def ranked(self) -> list[Measured]:
        """Candidates, the largest gain first."""
        return sorted(self.candidates, key=lambda each: -each.held[self.ranked_on].gain.value)

    def winner(self) -> Measured | None:
        """The candidate that `best` names."""
        return next((each for each in self.candidates if each.key == self.best), None)


def best_of(candidates: list[Measured], noise: Held, split: str) -> Key | None:
    """Key of the candidate of the largest gain; None when its interval reaches that of noise, or zero."""
    first = max(candidates, key=lambda each: each.held[split].gain.value)
    return first.key if first.held[split].gain.low > max(0, noise.gain.high) else None


def rivals(findings: Findings) -> list[str]:
    """Candidates besides the best one that gain most in at least 2.5 % of the resamples."""
    split = findings.ranked_on
    return [e.name for e in findings.ranked() if e.key != findings.best and e.held[split].first >= RIVAL]


def recommended(findings: Findings) -> list[str]:
    """Settings, `section.key=value` each: the best candidate's layer, or no distillation where none gains anything."""
    found = findings.winner()
    if found is None:
        return ["loss.distillation.form=none"]
    return [
        f"llm.slug={found.model}",
        f"llm.layers=[{found.layer}]",
        f"llm.pooling={found.stored}",
        f"loss.distillation.layer={found.layer}",
    ]


def caution(findings: Findings) -> str:
    """What to know before following the recommendation; "" when it ranks as trainings do (docs/probe.md)."""
    found = findings.winner()
    if found is None or found.stored != "tokens":
        return ""
    return (
        "a teacher reads every token, the probe one vector of them: which layer of token states is best is for "
        "`sur sweep` to say (docs/probe.md)"
    )


def write_findings(folder: Path, findings: Findings) -> Path:
    """Write probe.json into `folder`, all or nothing; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{NAME}.json"
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(as_json(findings) + "\n", encoding="utf-8")
    return partial.replace(target)


def as_json(findings: Findings) -> str:
    """JSON; a number that is not known is null."""
    return findings.model_dump_json(indent=2)


def shown(interval: Interval, digits: int = 3) -> str:
    """ "0.123 [0.100, 0.145]"; "" when it is not known."""
    if not math.isfinite(interval.value):
        return ""
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
