"""Evaluation: does the picture show what the prompt asked for, and how much of the gap does the adapter close?

Every prompt is drawn as narrative, as narrative through the adapter, and as complex prompt where there is one, from
the same noise. The gap of a set is the score under complex prompts minus the score under narrative ones; `closed` is
the share of it that the adapter wins back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import ValidationError

from sur.config.evaluation import EvaluateConfig
from sur.evaluation.drawing import Drawer, Drawn
from sur.evaluation.judges.oracle import distance, fact_shares, outline_fit
from sur.evaluation.judges.scorer import Scorer, build_scorers, judges_identity
from sur.evaluation.pictures import read_picture
from sur.evaluation.prompts.prompts import Condition, PromptSet
from sur.evaluation.prompts.sets import prompt_sets
from sur.evaluation.results import RESULT, About, Asked, Evaluation, Row, Single, read_singles, write_result
from sur.evaluation.scoring import ALL, groups_of, summarise
from sur.evaluation.subject import Subject
from sur.shapes.oracle import look
from sur.support.errors import ConfigError
from sur.support.timings import note_seconds

EVALUATION_VERSION = 2  # to be raised when questions, oracle or scores change
_log = logging.getLogger(__name__)


def evaluate(subject: Subject, on_pictures: Callable[[int], None] | None = None) -> Evaluation:
    """Draw what is not drawn yet, score everything, write evaluation.json and evaluation.jsonl.

    Raises FileNotFoundError when there is no adapter, ConfigError when nothing is asked for or a judge is missing.
    """
    if not subject.settings.asked:
        raise ConfigError(
            "nothing to evaluate: evaluate.sets and evaluate.files are empty. Use evaluate.sets=[everyday], or a file "
            "of your own prompts (docs/evaluation.md)"
        )
    began = time.monotonic()
    drawer, sets = Drawer(subject), prompt_sets(subject.settings)
    _ = drawer.adapter  # a missing adapter or judge is told before hours of drawing
    scorers = build_scorers(subject.settings, sets)
    digest = _digest(subject)
    drawn = [drawer.draw(each.prompts, on_pictures) for each in sets]
    result = Evaluation(
        digest=digest, adapter=str(subject.adapter), adapter_fingerprint=subject.adapter_fingerprint,
        weight=subject.settings.weight, pictures=str(subject.pictures.root), rows=[], gaps=[],
        comparisons=[], sets=[Asked(name=s.name, meaning=s.meaning, groups=dict(s.groups)) for s in sets],
        scorers=[_about(scorer) for scorer in scorers],
    )  # fmt: skip
    singles: list[Single] = []
    for asked, files in zip(sets, drawn, strict=True):
        scores: dict[str, dict[Condition, np.ndarray]] = {}
        for scorer in scorers:
            if not any(prompt.has(scorer.needs) for prompt in asked.prompts):
                continue
            scores[scorer.name] = judge(scorer, asked, files, subject.settings)
            rows, gaps, comparisons = summarise(asked, scorer, scores[scorer.name], subject.settings)
            result.rows.extend(_with_details(rows, asked, files, drawer) if scorer.name == "oracle" else rows)
            result.gaps.extend(gaps)
            result.comparisons.extend(comparisons)
        singles += _singles(asked, files, scores, subject)
        if not scores:
            _log.warning("nothing judges %s: set evaluate.clip, evaluate.vqa or evaluate.iqa", asked.name)
    subject.folder.mkdir(parents=True, exist_ok=True)
    note_seconds(subject.folder, "evaluate", time.monotonic() - began)
    write_result(subject.folder, result, singles)
    return result


def kept_evaluation(subject: Subject) -> Evaluation | None:
    """The folder's evaluation if it is of these weights, prompts and settings, and has the pictures of its report."""
    path, settings = subject.folder / RESULT, subject.settings
    if not path.is_file() or not settings.asked or not subject.adapter.is_dir():
        return None
    try:
        kept, singles = Evaluation.model_validate_json(path.read_text()), read_singles(subject.folder)
    except ValidationError:  # of another version
        return None
    if kept.digest != _digest(subject) or not singles:
        return None
    shown = [name for name in {each.set for each in singles} for name in _shown(singles, name, settings.examples)]
    if not all((subject.pictures.root / file).is_file() for file in shown):
        return None
    _log.info("nothing has changed since the evaluation in %s; remove it to evaluate again", path)
    return kept.model_copy(update={"adapter": str(subject.adapter), "pictures": str(subject.pictures.root)})


def judge(
    scorer: Scorer, asked: PromptSet, drawn: Drawn, settings: EvaluateConfig
) -> dict[Condition, Float[np.ndarray, "prompts repeats"]]:
    """A scorer's value of every picture, NaN where there is none; pictures are opened a batch at a time."""
    scores: dict[Condition, np.ndarray] = {}
    for condition, files in drawn.items():
        scores[condition] = np.full((len(asked.prompts), settings.seeds_per_prompt), np.nan)
        places = [(i, k) for i in files for k in range(len(files[i])) if asked.prompts[i].has(scorer.needs)]
        for start in range(0, len(places), settings.batch_size):
            batch = places[start : start + settings.batch_size]
            pictures = [read_picture(files[i][k]) for i, k in batch]
            found = scorer.score(pictures, [asked.prompts[i] for i, _ in batch])
            for place, value in zip(batch, found, strict=True):
                scores[condition][place] = np.nan if value is None else value
    return scores


def _with_details(rows: Sequence[Row], asked: PromptSet, drawn: Drawn, drawer: Drawer) -> list[Row]:
    """The oracle's rows with facts, outline fit and, for the whole set, the Fréchet distance."""
    detailed, scenes = [], {i: p.scene for i, p in enumerate(asked.prompts) if p.scene is not None}
    groups = dict(groups_of(asked))
    pictures = {c: {i: [read_picture(f) for f in files[i]] for i in files if i in scenes} for c, files in drawn.items()}
    seen = {c: {i: [look(picture) for picture in each] for i, each in made.items()} for c, made in pictures.items()}
    for row in rows:
        places = [i for i in groups[row.group] for _ in seen[row.condition].get(i, ())]
        found = [each for i in groups[row.group] for each in seen[row.condition].get(i, ())]
        shown = [scenes[i] for i in places]
        extra: dict[str, Any] = {"facts": fact_shares(shown, found), "fit": outline_fit(found)}
        if row.group == ALL:
            made = [p for i in groups[ALL] for p in pictures[row.condition].get(i, ())]
            extra["frechet"] = distance(drawer.pipe.vae, made, shown, drawer.subject.settings.seed)
        detailed.append(row.model_copy(update=extra))
    return detailed


def _singles(
    asked: PromptSet, drawn: Drawn, scores: Mapping[str, Mapping[Condition, np.ndarray]], subject: Subject
) -> list[Single]:
    root = subject.pictures.root
    return [
        Single(
            set=asked.name, id=prompt.id, groups=prompt.groups, narrative=prompt.narrative, complex=prompt.complex,
            pictures={c: [f.relative_to(root).as_posix() for f in of[i]] for c, of in drawn.items() if i in of},
            scores={
                name: {c: values[i].tolist() for c, values in each.items() if i in drawn[c]}
                for name, each in scores.items()
            },
        )
        for i, prompt in enumerate(asked.prompts)
    ]  # fmt: skip


def _shown(singles: Sequence[Single], name: str, examples: int) -> list[str]:
    """Pictures that the report shows of a set."""
    shown = [each for each in singles if each.set == name][:examples]
    return [files[0] for each in shown for files in each.pictures.values()]


def _about(scorer: Scorer) -> About:
    return About(
        name=scorer.name, meaning=scorer.meaning, higher_is_better=scorer.higher_is_better, top=scorer.top
    )  # fmt: skip


def _digest(subject: Subject) -> str:
    """Of all that an evaluation depends on; FileNotFoundError when there is no adapter or no pipeline."""
    settings = subject.settings
    content = {
        "version": EVALUATION_VERSION,
        "adapter": subject.adapter_fingerprint,
        "pipeline": subject.base_fingerprint,
        "settings": settings.model_dump(mode="json", exclude={"pictures"}),
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() for path in settings.files if path.is_file()],
        "judges": judges_identity(settings),
        "libraries": subject.libraries,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
