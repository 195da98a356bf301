"""A folder to publish: the adapter, a grid of pictures, and a model card with the measurements."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from sur.adapter.base import BaseAdapter
from sur.cache import Manifest
from sur.config.run import RunConfig, load_config
from sur.config.run_folder import RunFolder
from sur.evaluation.results import Evaluation, ScoreRow
from sur.models.fingerprint import weights_fingerprint
from sur.models.locate import is_hub_id
from sur.support.errors import ConfigError
from sur.support.files import replacing_folder
from sur.training.checkpoint import processes_of, published_step

CARD, PLACEHOLDER = "README.md", "YOUR-NAME/YOUR-ADAPTER"
LICENSED = ("adapter", "data", "base model", "LLM")  # parts whose licence the publisher has to name


def publish_adapter(run_dir: Path, folder: Path, licences: dict[str, str], repository: str | None = None) -> Path:
    """Write the folder; returns its path.

    licences: one for each of LICENSED that took part in the run. repository: the hub id that the card names.
    Raises FileNotFoundError when the run has no adapter, ConfigError when `run_dir` is not a run's folder, a licence is
    missing, `folder` is not empty, or the evaluation is of other weights.
    """
    run = RunFolder(run_dir)
    if not run.config.is_file():
        raise ConfigError(f"{run_dir} is no run: it has no {run.config.name}; give the run_dir of a training")
    config = load_config(run.config)
    source = run.adapter
    adapter = BaseAdapter.from_pretrained(source)
    licensed = [part for part in LICENSED if part != "LLM" or config.loss.uses_llm]
    if missing := [part for part in licensed if not licences.get(part)]:
        raise ConfigError(f"give the licence of: {', '.join(missing)} (an SPDX name such as apache-2.0, or other)")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; give another folder, or remove it")
    grid = run.grid
    licences = {part: licences[part] for part in licensed}
    card = _card(config, run, adapter, [grid.name] if grid.is_file() else [], licences, repository)
    with replacing_folder(folder.resolve()) as partial:  # all or nothing: what a killed run leaves is in nobody's way
        shutil.copytree(source, partial, dirs_exist_ok=True)
        if grid.is_file():
            shutil.copyfile(grid, partial / grid.name)
        (partial / CARD).write_text(card, encoding="utf-8")
    return folder


def _card(
    config: RunConfig,
    run: RunFolder,
    adapter: BaseAdapter,
    pictures: list[str],
    licences: dict[str, str],
    repository: str | None,
) -> str:
    evaluation = _evaluation(run)
    manifest = Manifest.load(run.manifest) if run.manifest.is_file() else None
    step, best = published_step(run.path, config.train.patience > 0)
    trained_on, base = adapter.trained_on, config.base_model
    return (
        Environment(loader=PackageLoader("sur.support"), undefined=StrictUndefined, trim_blocks=True)
        .get_template("model-card.md.j2")
        .render(
            base_model=base if is_hub_id(base) else Path(base).name,
            base_is_public=is_hub_id(base),
            base_revision=config.base_model_revision,
            t5_tokens=adapter.t5_tokens,
            here=repository or PLACEHOLDER,
            pictures=pictures,
            conditions=list(_conditions(evaluation)),
            rows=list(_rows(evaluation)),
            dial=evaluation.weight if evaluation is not None else None,
            rows_trained_on="an unknown number" if manifest is None else len(manifest.ids),
            manifest="" if manifest is None else manifest.digest[:16],
            data=config.data.slug,
            steps=best or step or config.train.steps,
            rows_a_step=config.train.batch_size * config.train.accumulate * processes_of(run.path),
            variant=adapter.variant,
            features=trained_on.get("features", {}),
            losses=yaml.safe_dump(trained_on.get("loss", {}), sort_keys=False),
            licences=licences,
        )
    )


def _evaluation(run: RunFolder) -> Evaluation | None:
    """The run's evaluation. Raises ConfigError when it is of other weights, or of another version."""
    path = run.evaluation
    if not path.is_file():
        return None
    again = f"run `sur evaluate` again, or remove {path}"
    try:
        evaluation = Evaluation.model_validate_json(path.read_text())
    except ValidationError as error:
        raise ConfigError(f"{path} is of another version of this package; {again}") from error
    if evaluation.adapter_fingerprint != weights_fingerprint(run.adapter):
        raise ConfigError(f"{path} is about another adapter ({evaluation.adapter}) than the run's; {again}")
    return evaluation


def _conditions(evaluation: Evaluation | None) -> Iterator[str]:
    if evaluation is not None:
        yield from dict.fromkeys(row.condition for row in evaluation.rows)


def _rows(evaluation: Evaluation | None) -> Iterator[dict[str, Any]]:
    """One line for each set, group and scorer: a score under every condition, and the paired comparison."""
    if evaluation is None:
        return
    conditions = list(_conditions(evaluation))
    scores = {(r.set, r.group, r.scorer, r.condition): r for r in evaluation.rows}
    paired = {(c.set, c.group, c.scorer): c for c in evaluation.comparisons}
    for key in dict.fromkeys((r.set, r.group, r.scorer) for r in evaluation.rows):
        rows = [scores.get((*key, condition)) for condition in conditions]
        comparison = paired.get(key)
        yield {
            "set": key[0],
            "group": key[1],
            "scorer": key[2],
            "prompts": max(row.prompts for row in rows if row is not None),
            "scores": [_score(row) for row in rows],
            "paired": f"{comparison.wins} / {comparison.losses} ({comparison.p:.3g})" if comparison else "",
        }


def _score(row: ScoreRow | None) -> str:
    return "" if row is None else f"{row.score.value:.3f} [{row.score.low:.3f}, {row.score.high:.3f}]"
