"""What a probe found: numbers with their intervals, as JSON, and what to write into a config."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel

from sur.evaluation.statistics import Interval
from sur.probe.config import ProbeConfig

NAME = "probe"
Inputs = str  # "text", "llm" or "both"


class Held(BaseModel):
    """How well the target of held-back rows is predicted, from the text encoder's vector, the LLM's, or both.

    r2: share of the target's variance. retrieval: share of rows whose own complex prompt is nearest to the prediction,
    of all that were judged in a fold. gain: r2 from both less r2 from the text encoder alone. first: share of the
    resamples in which no other candidate gains more. units: words or groups that were resampled.
    """

    rows: int
    units: int
    gallery: float
    r2: dict[Inputs, Interval]
    retrieval: dict[Inputs, Interval]
    gain: Interval
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


class Findings(BaseModel):
    """A whole probe. `ranked_on`: the split whose gain decides; `best` names the candidate, None where none gains."""

    store: str
    text: str
    target: str
    rows: int
    settings: ProbeConfig
    text_cka: Interval
    ranked_on: str
    candidates: list[Measured]
    best: str | None

    def ranked(self) -> list[Measured]:
        """Candidates, the largest gain first."""
        return sorted(self.candidates, key=lambda each: -each.held[self.ranked_on].gain.value)


def best_of(candidates: list[Measured], split: str) -> str | None:
    """The candidate of the largest gain; None when its interval reaches zero."""
    first = max(candidates, key=lambda each: each.held[split].gain.value)
    return first.name if first.held[split].gain.low > 0 else None


def recommended(findings: Findings) -> list[str]:
    """Settings, `section.key=value` each: the best candidate's layer, or no distillation where none gains anything."""
    found = next((each for each in findings.candidates if each.name == findings.best), None)
    if found is None:
        return ["loss.distillation.form=none"]
    return [
        f"llm.slug={found.model}",
        f"llm.layers=[{found.layer}]",
        f"llm.pooling={found.stored}",
        f"loss.distillation.layer={found.layer}",
    ]


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
