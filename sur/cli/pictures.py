"""Commands that draw: generate and evaluate."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sur.cli.arguments import OverridesArgument, console, read_config

if TYPE_CHECKING:
    from sur.config import RunConfig
    from sur.evaluation import Evaluation, Subject


def generate(
    base_model: Annotated[str, typer.Argument(help="Diffusers pipeline folder.", show_default=False)],
    prompts: Annotated[list[str], typer.Argument(help="One or more prompts.", show_default=False)],
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter folder or hub id; none: the bare pipeline only.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/generated"),
    seed: Annotated[int, typer.Option(help="Seed, the same with and without the adapter.")] = 0,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 7.5,
    weight: Annotated[float | None, typer.Option(help="How much of the adapter: 0 = off, 1 = as trained.")] = None,
) -> None:
    """Draw each prompt without and with the adapter.

    Both are drawn from the same seed.
    """
    from sur.adapter import Adapter
    from sur.errors import ConfigError
    from sur.generate import generate as draw
    from sur.generate import load_pipeline

    if adapter is None and weight is not None:
        raise ConfigError("--weight is how much of the adapter; name it with --adapter")
    loaded = Adapter.from_pretrained(adapter) if adapter is not None else None
    pipe = load_pipeline(base_model)
    out.mkdir(parents=True, exist_ok=True)
    for variant, worn in (("plain", None), ("adapter", loaded))[: 1 if loaded is None else 2]:
        pictures = draw(pipe, prompts, [seed] * len(prompts), worn, steps=steps, guidance=guidance, weight=weight,
                        t5_tokens=loaded.t5_tokens if loaded else None)  # fmt: skip
        for index, picture in enumerate(pictures):
            path = out / f"{index:03d}-{variant}.png"
            picture.save(path)
            typer.echo(str(path))


def evaluate(
    config: Annotated[
        str | None, typer.Argument(help="YAML file, such as configs/shapes.yaml; none with --pipeline.")
    ] = None,
    overrides: OverridesArgument = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder or hub id; default: the run folder's.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Pipeline folder or hub id, to evaluate an adapter without a config.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt file (.jsonl, .yaml), in place of the config's sets and files.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what is made; default: the run folder, or runs/evaluation.")
    ] = None,
) -> None:
    """Score pictures without and with the adapter.

    Draws narratives, narratives with the adapter and complex prompts, scores them, and writes the report.
    """
    from sur.evaluation import evaluate as score
    from sur.evaluation import kept_evaluation
    from sur.evaluation.drawing import pictures_of
    from sur.evaluation.sets import prompt_sets
    from sur.log import log_to_stderr
    from sur.progress import Progress
    from sur.report import write_report
    from sur.stopping import stopped_with

    run, subject = _subject(config, overrides or [], adapter, pipeline, prompts, out)
    with log_to_stderr():
        result = kept_evaluation(subject)
        if result is None:
            with Progress("evaluate", pictures_of(subject, prompt_sets(subject.settings)), "pictures") as progress:
                try:
                    result = score(subject, progress.advance)
                except KeyboardInterrupt as error:
                    raise stopped_with(error, [f"every picture that was drawn, in {subject.folder}"]) from error
    print_scores(result)
    typer.echo(f"report: {write_report(subject, result, run)}")


def _subject(
    config: str | None,
    overrides: list[str],
    adapter: Path | None,
    pipeline: str | None,
    prompts: Path | None,
    out: Path | None,
) -> "tuple[RunConfig | None, Subject]":
    """What to judge: a run's adapter, or with `pipeline` one that has no run; then every argument is an override."""
    from sur.config import evaluation_settings
    from sur.errors import ConfigError
    from sur.evaluation import Subject
    from sur.hub import adapter_folder

    if prompts is not None:
        overrides = [*overrides, "evaluate.sets=[]", f"evaluate.files={json.dumps([str(prompts)])}"]
    if pipeline is None:
        if config is None:
            raise ConfigError("give a config file, or --pipeline FOLDER --adapter FOLDER --prompts FILE")
        run = read_config(Path(config), overrides)
        chosen = run.run_dir / "adapter" if adapter is None else adapter_folder(adapter)
        return run, Subject(run.base, chosen, run.evaluate, out or run.run_dir)
    if adapter is None:
        raise ConfigError("--pipeline wants --adapter FOLDER beside it")
    adapter = adapter_folder(adapter)
    settings = evaluation_settings(overrides if config is None else [config, *overrides])
    return None, Subject((pipeline, None), adapter, settings, out or Path("runs/evaluation"))


def print_scores(result: "Evaluation") -> None:
    """Every score, the adapter against the narrative, and the share of the gap that it closes."""
    table = Table("set", "scorer", "group", "prompt", "pictures", "score", "outline fit", "fréchet")
    for row in result.rows:
        fit, distance = ("" if each is None else f"{each:.{n}f}" for each, n in ((row.fit, 3), (row.frechet, 2)))
        pictures = str(row.pictures)
        table.add_row(row.set, row.scorer, row.group, row.condition, pictures, str(row.score), fit, distance)
    console().print(table)
    closed = {(gap.set, gap.scorer, gap.group): gap.closed for gap in result.gaps}
    for each in result.comparisons:
        share = closed.get((each.set, each.scorer, each.group))
        gap = "no gap to close" if share is None or math.isnan(share.value) else f"share of the gap closed {share}"
        typer.echo(
            f"{each.set}, {each.scorer}, {each.group}: {gap}; adapter - narrative {each.difference}, "
            f"prompts better {each.wins}, worse {each.losses}, the same {each.ties}, p = {each.p:.2g}"
        )
