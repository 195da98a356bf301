"""Which of a store's adapters is in use: candidates are trained as rows come, and one takes the place only if better.

Everything lies in the run folder: each candidate in `candidates/<number>`, the one in use behind the link `promoted`,
and what became of each in `promotions.jsonl`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cache import Manifest, Store
from sur.errors import ConfigError
from sur.evaluation.prompts import Condition
from sur.evaluation.results import Evaluation, Single
from sur.evaluation.statistics import Interval, mean, resampled

if TYPE_CHECKING:
    from sur.config import RunConfig

CANDIDATES, PROMOTED, HISTORY, MANIFEST = "candidates", "promoted", "promotions.jsonl", "manifest.safetensors"
_log = logging.getLogger(__name__)


class PromoteConfig(BaseModel):
    """When new rows are worth a training, and when its adapter takes the place of the one in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_new_rows: int = Field(
        default=100, ge=1, description="rows that no candidate has seen, from which one is trained"
    )
    scorer: str | None = Field(default=None, description="judge that decides; none: the first of the evaluation")
    set: str | None = Field(default=None, description="prompt set that decides; none: all that the judge has scored")
    min_gain: float = Field(
        default=0.0, ge=0, description="mean gain a prompt over the adapter in use that has to be exceeded"
    )
    certain: bool = Field(
        default=True, description="whether the gain's whole 95 % interval has to exceed it, or the mean alone"
    )


@dataclass(frozen=True)
class Candidate:
    """A training on what the store holds now. new_rows: those that no earlier candidate has seen."""

    number: int
    config: RunConfig
    rows: int
    new_rows: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.number:04d}"


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate. gain: mean difference a prompt to what was in use, with its 95 % interval."""

    candidate: str
    rows: int
    new_rows: int
    against: str
    scorer: str
    prompts: int
    gain: tuple[float, float, float]
    promoted: bool


def next_candidate(config: RunConfig) -> Candidate | int:
    """What to train now, an unfinished candidate first; or, where rows are too few, how many new ones there are.

    Raises: ConfigError when the settings leave nothing to judge by.
    """
    if not config.evaluate.asked:
        raise ConfigError(
            "an adapter is promoted by its evaluation, and evaluate.sets and evaluate.files are empty; name prompts to "
            "judge by, such as evaluate.sets=[everyday] with evaluate.clip (docs/evaluation.md)"
        )
    store = Store.open(config.store.path)
    now = {row.tobytes() for row in store.row_ids()[store.members(config.data.slug)]}
    numbers = sorted(int(path.name) for path in (config.run_dir / CANDIDATES).glob("[0-9]*"))
    judged = {verdict.candidate for verdict in read_verdicts(config.run_dir)}
    unfinished = [number for number in numbers if f"{number:04d}" not in judged]
    seen: set[bytes] = set()
    for number in numbers:
        path = config.run_dir / CANDIDATES / f"{number:04d}" / MANIFEST
        if number not in unfinished and path.is_file():
            seen |= {row.tobytes() for row in Manifest.load(path).ids}
    new = len(now - seen)
    if not unfinished and new < config.promote.min_new_rows:
        return new
    number = unfinished[0] if unfinished else max(numbers, default=0) + 1
    made = Candidate(number, config, len(now), new)
    return replace(made, config=config.model_copy(update={"run_dir": config.run_dir / CANDIDATES / made.name}))


def judge(
    candidate: Candidate, evaluation: Evaluation, singles: Sequence[Single], in_use: Sequence[Single] | None
) -> Verdict:
    """Compare a candidate with the adapter in use, or with none, prompt by prompt on the same noise.

    in_use: what the promoted adapter drew for the same prompts; None when nothing is promoted yet.

    Raises: ConfigError when the judge or set named by the settings is not in the evaluation.
    """
    settings, seed = candidate.config.promote, candidate.config.evaluate.seed
    names = [about.name for about in evaluation.scorers]
    scorer = settings.scorer or next(iter(names), None)
    if scorer is None or scorer not in names:
        raise ConfigError(
            f"promote.scorer is {scorer}, but the evaluation was judged by {', '.join(names) or 'nothing'}"
        )
    about = next(each for each in evaluation.scorers if each.name == scorer)
    mine = _scores(singles, scorer, "adapter", settings.set)
    theirs = _scores(
        singles if in_use is None else in_use, scorer, "narrative" if in_use is None else "adapter", settings.set
    )
    prompts = sorted(mine.keys() & theirs.keys())
    if not prompts:
        sets = sorted({single.set for single in singles})
        raise ConfigError(
            f"promote.set={settings.set}: {scorer} has scored no prompt of it; there are {', '.join(sets)}"
        )
    sign = 1.0 if about.higher_is_better else -1.0
    difference = np.array([sign * (mine[prompt] - theirs[prompt]) for prompt in prompts])
    gain = mean(difference, resampled(len(prompts), 10_000, seed))
    return Verdict(
        candidate=candidate.name,
        rows=candidate.rows,
        new_rows=candidate.new_rows,
        against="no adapter" if in_use is None else promoted_name(candidate.config.run_dir.parents[1]) or "",
        scorer=scorer,
        prompts=len(prompts),
        gain=(gain.value, gain.low, gain.high),
        promoted=is_better(gain, settings),
    )


def is_better(gain: Interval, settings: PromoteConfig) -> bool:
    """Whether a gain is enough."""
    return (gain.low if settings.certain else gain.value) > settings.min_gain


def settle(run_dir: Path, verdict: Verdict) -> None:
    """Put a better candidate in use, then note the verdict; killed in between, the same verdict is come to again."""
    if verdict.promoted:
        new = run_dir / f".{PROMOTED}.{os.getpid()}"
        new.unlink(missing_ok=True)
        new.symlink_to(Path(CANDIDATES) / verdict.candidate / "adapter")
        new.replace(run_dir / PROMOTED)
    path = run_dir / HISTORY
    cut = path.is_file() and not path.read_bytes().endswith(b"\n")  # by a crash; its line stays for people to see
    with path.open("a", encoding="utf-8") as history:
        history.write(("\n" if cut else "") + json.dumps(asdict(verdict)) + "\n")
        history.flush()
        os.fsync(history.fileno())
    low, high = verdict.gain[1:]
    _log.info(
        "candidate %s against %s by %s: %+.3f [%+.3f, %+.3f] on %d prompts: %s",
        verdict.candidate, verdict.against, verdict.scorer, verdict.gain[0], low, high, verdict.prompts,
        "promoted" if verdict.promoted else "not promoted",
    )  # fmt: skip


def read_verdicts(run_dir: Path) -> list[Verdict]:
    """Every verdict so far; a last line that a crash cut short is left out."""
    path = run_dir / HISTORY
    verdicts = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        verdicts.append(Verdict(**{**content, "gain": tuple(content["gain"])}))
    return verdicts


def promoted_name(run_dir: Path) -> str | None:
    """Candidate in use, None when there is none yet."""
    link = run_dir / PROMOTED
    return link.readlink().parent.name if link.is_symlink() else None


def _scores(
    singles: Sequence[Single], scorer: str, condition: Condition, only: str | None
) -> dict[tuple[str, str], float]:
    """Mean score of each prompt that was scored under a condition."""
    scores = {}
    for single in singles:
        values = np.array(single.scores.get(scorer, {}).get(condition, ()), float)
        if len(values) and np.isfinite(values).all() and only in (None, single.set):
            scores[single.set, single.id] = float(values.mean())
    return scores
