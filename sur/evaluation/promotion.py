"""The adapter of a store that is in use: candidates are trained as rows come, and only a better one replaces it.

Everything lies in the run folder: each candidate in `candidates/<number>`, the one in use behind the link `promoted`,
and the verdicts in `promotions.jsonl`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sur.cache import Manifest, Store
from sur.config.evaluation import PromoteConfig
from sur.config.run_folder import RunFolder
from sur.evaluation.prompts.prompts import Condition
from sur.evaluation.results import Evaluation, Single
from sur.evaluation.statistics import Interval, mean, resampled
from sur.support.errors import ConfigError
from sur.support.files import file_lines

if TYPE_CHECKING:
    from sur.config.run import RunConfig

MADE_FROM = "made-from.safetensors"  # rows of the data set when a candidate was made
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromotionCandidate:
    """A training on the rows that the store holds now. new_rows: number of rows that no earlier candidate has seen."""

    number: int
    config: RunConfig
    rows: int
    new_rows: int

    @property
    def name(self) -> str:
        """Name of the candidate's folder."""
        return f"{self.number:04d}"


@dataclass(frozen=True)
class Verdict:
    """The decision on a candidate.

    gain: mean difference for each prompt to the adapter in use, with its 95 % interval. why: the reason when it was
    not promoted. abandoned: it was never judged, and its rows are new to the next candidate.
    """

    candidate: str
    rows: int
    new_rows: int
    against: str
    scorer: str
    prompts: int
    gain: tuple[float, float, float]
    promoted: bool
    why: str = ""
    abandoned: bool = False


def next_candidate(config: RunConfig) -> PromotionCandidate | int:
    """The candidate to train now, an unfinished one first; or the number of new rows, when they are too few.

    Raises: ConfigError when the settings leave nothing to judge by.
    """
    if not config.evaluate.asked:
        raise ConfigError(
            "an adapter is promoted by its evaluation, and evaluate.sets and evaluate.files are empty; name prompts to "
            "judge by, such as evaluate.sets=[everyday] with evaluate.clip (docs/evaluation.md)"
        )
    _put_in_use(config.run_dir)
    verdicts = {verdict.candidate: verdict for verdict in read_verdicts(config.run_dir)}
    folders = [
        path.name for path in RunFolder(config.run_dir).candidates.glob("*") if re.fullmatch(r"\d{4,}", path.name)
    ]
    seen: set[bytes] = set()
    for name in sorted(folders):
        if name not in verdicts:
            return _candidate(config, int(name), seen)
        if not verdicts[name].abandoned:
            seen |= _rows_of(RunFolder(config.run_dir).candidates / name)
    new = len(_members(config.store.path, config.data.slug) - seen)
    if new < config.promote.min_new_rows:
        return new
    return _candidate(config, max(map(int, [*folders, *verdicts]), default=0) + 1, seen)


def _candidate(config: RunConfig, number: int, seen: set[bytes]) -> PromotionCandidate:
    """A candidate, with the rows that it is made from; an unfinished candidate keeps the rows that it began with."""
    folder = RunFolder(config.run_dir).candidates / f"{number:04d}"
    if not (folder / MADE_FROM).is_file():
        ids = np.frombuffer(b"".join(sorted(_members(config.store.path, config.data.slug))), np.uint8).reshape(-1, 16)
        Manifest(ids, np.zeros(len(ids), np.int64), 0, {}).save(folder / MADE_FROM)
    rows = _rows_of(folder)
    pictures = config.evaluate.pictures or RunFolder(config.run_dir).pictures  # shared, so that none is drawn twice
    own = {"run_dir": folder, "evaluate": config.evaluate.model_copy(update={"pictures": pictures})}
    return PromotionCandidate(number, config.model_copy(update=own), len(rows), len(rows - seen))


def _members(path: Path | str, dataset: str) -> set[bytes]:
    """Ids of the rows that a data set of the store at `path` has now."""
    store = Store.open(path)
    return {row.tobytes() for row in store.row_ids()[store.members(dataset)]}


def _rows_of(folder: Path) -> set[bytes]:
    """Ids of the rows that a candidate was made from; an empty set where their file is gone."""
    path = folder / MADE_FROM
    return {row.tobytes() for row in Manifest.load(path).ids} if path.is_file() else set()


def judge_candidate(
    candidate: PromotionCandidate, evaluation: Evaluation, singles: Sequence[Single], in_use: Sequence[Single] | None
) -> Verdict:
    """The verdict on a candidate, compared with the adapter in use, or with none, prompt by prompt on the same noise.

    in_use: scores of the promoted adapter on the same prompts; None when nothing is promoted yet.

    Raises: ConfigError when the judge or set named by the settings is not in the evaluation.
    """
    settings, seed = candidate.config.promote, candidate.config.evaluate.seed
    scorers = {info.name: info for info in evaluation.scorers}
    scorer = settings.scorer or next(iter(scorers), None)
    if scorer is None or scorer not in scorers:
        raise ConfigError(
            f"promote.scorer is {scorer}, but the evaluation was judged by {', '.join(scorers) or 'nothing'}"
        )
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
    sign = 1.0 if scorers[scorer].higher_is_better else -1.0
    unscored = len(theirs.keys() - mine.keys())
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
        promoted=not (why := _why_not(gain, len(prompts), unscored, settings)),
        why=why,
    )


def _why_not(gain: Interval, prompts: int, unscored: int, settings: PromoteConfig) -> str:
    """The reason why a candidate is not promoted; "" when it is promoted."""
    if unscored:
        return f"{unscored} prompts that were scored before have no score with it"
    if prompts < settings.min_prompts:
        return f"{prompts} prompts are fewer than promote.min_prompts, {settings.min_prompts}"
    if (gain.low if settings.certain else gain.value) <= settings.min_gain:
        return f"its gain is not {'certainly ' if settings.certain else ''}above {settings.min_gain:g}"
    return ""


def abandon_candidate(candidate: PromotionCandidate, error: Exception) -> None:
    """Record that a candidate cannot be finished, so that the next night begins another."""
    none = (math.nan, math.nan, math.nan)
    verdict = Verdict(
        candidate.name, candidate.rows, candidate.new_rows, "", "", 0, none, False, f"abandoned: {error}", True
    )
    record_verdict(candidate.config.run_dir.parents[1], verdict)


def record_verdict(run_dir: Path, verdict: Verdict) -> None:
    """Record a verdict, put the candidate in use if it is promoted, and remove the checkpoints of its training.

    When the process is killed in between, the next night puts the candidate in use.
    """
    path = RunFolder(run_dir).promotions
    cut = path.is_file() and not path.read_bytes().endswith(b"\n")  # by a crash; the line stays for people to see
    with path.open("a", encoding="utf-8") as history:
        history.write(("\n" if cut else "") + json.dumps(asdict(verdict)) + "\n")
        history.flush()
        os.fsync(history.fileno())
    _put_in_use(run_dir)
    shutil.rmtree(RunFolder(RunFolder(run_dir).candidates / verdict.candidate).checkpoints, ignore_errors=True)
    _log.info("candidate %s: %s", verdict.candidate, verdict.why or "promoted")


def _put_in_use(run_dir: Path) -> None:
    """Point the link to the candidate that was promoted last."""
    promoted = [verdict.candidate for verdict in read_verdicts(run_dir) if verdict.promoted]
    if not promoted or promoted_name(run_dir) == promoted[-1]:
        return
    link = RunFolder(run_dir).promoted
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to((RunFolder(run_dir).candidates / promoted[-1] / "adapter").relative_to(run_dir))
    new.replace(link)


def read_verdicts(run_dir: Path) -> list[Verdict]:
    """Every verdict so far; a last line that a crash cut short is left out."""
    path = RunFolder(run_dir).promotions
    verdicts = []
    for line in file_lines(path) if path.is_file() else []:
        try:
            content = json.loads(line)
        except ValueError:
            continue
        verdicts.append(Verdict(**{**content, "gain": tuple(content["gain"])}))
    return verdicts


def promoted_name(run_dir: Path) -> str | None:
    """PromotionCandidate in use, None when there is none yet."""
    link = RunFolder(run_dir).promoted
    return link.readlink().parent.name if link.is_symlink() else None


def _scores(
    singles: Sequence[Single], scorer: str, condition: Condition, only: str | None
) -> dict[tuple[str, str], float]:
    """Mean score of each prompt that was scored under a condition, by set and id."""
    scores = {}
    for single in singles:
        values = np.array(single.scores.get(scorer, {}).get(condition, ()), float)
        if len(values) and np.isfinite(values).all() and only in (None, single.set):
            scores[single.set, single.id] = float(values.mean())
    return scores
