"""Evaluation: does the picture show what the prompt asked for, and how much of the gap does the adapter close?

Every prompt is drawn as narrative, as narrative through the adapter, and as complex prompt where it has one, from
the same noise. The gap of a set is the score under complex prompts minus the score under narrative ones; `closed` is
the share of the gap that the adapter wins back.
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

from sur.config.evaluation import EvaluateConfig
from sur.config.run_folder import RunFolder
from sur.evaluation.drawing import Drawer, Drawn
from sur.evaluation.judges.oracle import fact_shares, frechet_to_rendered, outline_fit
from sur.evaluation.judges.scorer import Scorer, build_scorers, judges_identity
from sur.evaluation.pictures import read_picture
from sur.evaluation.prompts.prompts import Condition, PromptSet
from sur.evaluation.prompts.sets import prompt_sets
from sur.evaluation.results import Evaluation, PromptSetInfo, ScorerInfo, ScoreRow, Single, read_singles, write_result
from sur.evaluation.scoring import ALL, prompts_by_group, summarise_scores
from sur.evaluation.subject import Subject
from sur.shapes.oracle import detect_objects
from sur.support.errors import ConfigError
from sur.support.timings import note_seconds

EVALUATION_VERSION = 2  # raise it when questions, oracle or scores change
_log = logging.getLogger(__name__)


def evaluate(subject: Subject, on_pictures: Callable[[int], None] | None = None) -> Evaluation:
    """The evaluation of an adapter, also written to evaluation.json and evaluation.jsonl; draws the missing pictures.

    on_pictures: is called with the number of pictures of each batch. Raises FileNotFoundError when there is no
    adapter, ConfigError when there is nothing to evaluate or a judge is missing.
    """
    settings = subject.settings
    if not settings.asked:
        raise ConfigError(
            "nothing to evaluate: evaluate.sets and evaluate.files are empty. Use evaluate.sets=[everyday], or a file "
            "of your own prompts (docs/evaluation.md)"
        )
    began = time.monotonic()
    drawer, sets = Drawer(subject), prompt_sets(settings)
    _ = drawer.adapter  # a missing adapter or judge is reported before hours of drawing
    scorers = build_scorers(settings, sets)
    digest = _digest(subject)
    drawn = [drawer.draw(prompt_set.prompts, on_pictures) for prompt_set in sets]
    result = Evaluation(
        digest=digest, adapter=str(subject.adapter), adapter_fingerprint=subject.adapter_fingerprint,
        weight=settings.weight, pictures=str(subject.pictures.root), rows=[], gaps=[],
        comparisons=[], sets=[PromptSetInfo(name=s.name, meaning=s.meaning, groups=dict(s.groups)) for s in sets],
        scorers=[_info(scorer) for scorer in scorers],
    )  # fmt: skip
    singles: list[Single] = []
    for prompt_set, files in zip(sets, drawn, strict=True):
        scores: dict[str, dict[Condition, np.ndarray]] = {}
        for scorer in scorers:
            if not any(prompt.has(scorer.needs) for prompt in prompt_set.prompts):
                continue
            scores[scorer.name] = score_pictures(scorer, prompt_set, files, settings)
            rows, gaps, comparisons = summarise_scores(prompt_set, scorer, scores[scorer.name], settings)
            result.rows.extend(_with_details(rows, prompt_set, files, drawer) if scorer.name == "oracle" else rows)
            result.gaps.extend(gaps)
            result.comparisons.extend(comparisons)
        singles += _singles(prompt_set, files, scores, subject)
        if not scores:
            _log.warning("nothing judges %s: set evaluate.clip, evaluate.vqa or evaluate.iqa", prompt_set.name)
    subject.folder.mkdir(parents=True, exist_ok=True)
    note_seconds(subject.folder, "evaluate", time.monotonic() - began)
    write_result(subject.folder, result, singles)
    return result


def kept_evaluation(subject: Subject) -> Evaluation | None:
    """The folder's evaluation, if it has these weights, prompts and settings and the pictures of its report exist."""
    path, settings = RunFolder(subject.folder).evaluation, subject.settings
    if not path.is_file() or not settings.asked or not subject.adapter.is_dir():
        return None
    try:
        evaluation, singles = Evaluation.model_validate_json(path.read_text()), read_singles(subject.folder)
    except ValueError:  # of another version, or damaged
        return None
    if evaluation.digest != _digest(subject) or not singles:
        return None
    sets = {single.set for single in singles}
    files = [file for name in sets for file in _report_pictures(singles, name, settings.examples)]
    if not all((subject.pictures.root / file).is_file() for file in files):
        return None
    _log.info("nothing has changed since the evaluation in %s; remove it to evaluate again", path)
    return evaluation.model_copy(update={"adapter": str(subject.adapter), "pictures": str(subject.pictures.root)})


def score_pictures(
    scorer: Scorer, prompt_set: PromptSet, drawn: Drawn, settings: EvaluateConfig
) -> dict[Condition, Float[np.ndarray, "prompts repeats"]]:
    """A scorer's value of every picture, NaN where it has none; pictures are opened one batch at a time."""
    prompts = prompt_set.prompts
    scores: dict[Condition, np.ndarray] = {}
    for condition, files in drawn.items():
        scores[condition] = np.full((len(prompts), settings.seeds_per_prompt), np.nan)
        places = [(i, k) for i in files for k in range(len(files[i])) if prompts[i].has(scorer.needs)]
        for start in range(0, len(places), settings.batch_size):
            batch = places[start : start + settings.batch_size]
            values = scorer.score([read_picture(files[i][k]) for i, k in batch], [prompts[i] for i, _ in batch])
            for place, value in zip(batch, values, strict=True):
                scores[condition][place] = np.nan if value is None else value
    return scores


def _with_details(rows: Sequence[ScoreRow], prompt_set: PromptSet, drawn: Drawn, drawer: Drawer) -> list[ScoreRow]:
    """The oracle's rows with facts, outline fit and, for the whole set, the Fréchet distance."""
    scenes = {i: prompt.scene for i, prompt in enumerate(prompt_set.prompts) if prompt.scene is not None}
    groups = dict(prompts_by_group(prompt_set))
    pictures = {c: {i: [read_picture(f) for f in files[i]] for i in files if i in scenes} for c, files in drawn.items()}
    objects = {
        condition: {i: [detect_objects(picture) for picture in repeats] for i, repeats in of_prompt.items()}
        for condition, of_prompt in pictures.items()
    }
    detailed = []
    for row in rows:
        places = [i for i in groups[row.group] for _ in objects[row.condition].get(i, ())]
        detected = [picture for i in groups[row.group] for picture in objects[row.condition].get(i, ())]
        targets = [scenes[i] for i in places]
        extra: dict[str, Any] = {"facts": fact_shares(targets, detected), "fit": outline_fit(detected)}
        if row.group == ALL:
            drawn_pictures = [p for i in groups[ALL] for p in pictures[row.condition].get(i, ())]
            seed = drawer.subject.settings.seed
            extra["frechet"] = frechet_to_rendered(drawer.pipe.vae, drawn_pictures, targets, seed)
        detailed.append(row.model_copy(update=extra))
    return detailed


def _singles(
    prompt_set: PromptSet, drawn: Drawn, scores: Mapping[str, Mapping[Condition, np.ndarray]], subject: Subject
) -> list[Single]:
    """Every prompt of a set with its pictures and scores."""
    root = subject.pictures.root
    return [
        Single(
            set=prompt_set.name, id=prompt.id, groups=prompt.groups, narrative=prompt.narrative,
            complex=prompt.complex,
            pictures={c: [f.relative_to(root).as_posix() for f in of[i]] for c, of in drawn.items() if i in of},
            scores={
                name: {c: values[i].tolist() for c, values in of_condition.items() if i in drawn[c]}
                for name, of_condition in scores.items()
            },
        )
        for i, prompt in enumerate(prompt_set.prompts)
    ]  # fmt: skip


def _report_pictures(singles: Sequence[Single], name: str, examples: int) -> list[str]:
    """Files of the pictures that the report shows of a set."""
    first = [single for single in singles if single.set == name][:examples]
    return [files[0] for single in first for files in single.pictures.values()]


def _info(scorer: Scorer) -> ScorerInfo:
    return ScorerInfo(
        name=scorer.name, meaning=scorer.meaning, higher_is_better=scorer.higher_is_better, top=scorer.top
    )  # fmt: skip


def _digest(subject: Subject) -> str:
    """Hash of everything that an evaluation depends on. Raises FileNotFoundError without adapter or pipeline."""
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
