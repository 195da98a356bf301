"""Commands for trained adapters: generate, evaluate, publish, convert."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sur.cli.arguments import OverridesArgument, console, read_config, say

if TYPE_CHECKING:
    from sur.config.run import RunConfig
    from sur.evaluation import Evaluation, Subject


def generate(
    base_model: Annotated[str, typer.Argument(help="Folder of the diffusers pipeline.", show_default=False)],
    prompts: Annotated[list[str], typer.Argument(help="One or more prompts.", show_default=False)],
    adapter: Annotated[
        Path | None, typer.Option(help="Folder or hub id of the adapter (default: the pipeline alone is drawn).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/generated"),
    seed: Annotated[int, typer.Option(help="Seed of every picture, the same with and without the adapter.")] = 0,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance.")] = 7.5,
    weight: Annotated[
        float | None, typer.Option(help="Weight of the adapter: 0 is off, 1 as trained (default: the adapter's own).")
    ] = None,
) -> None:
    """Draw each prompt without and with the adapter.

    Both are drawn from the same seed.
    """
    from sur.adapter.adapter import Adapter
    from sur.adapter.generate import generate as draw
    from sur.adapter.generate import load_pipeline
    from sur.support.errors import ConfigError

    if adapter is None and weight is not None:
        raise ConfigError("--weight is the weight of an adapter; name the adapter with --adapter")
    loaded = Adapter.from_pretrained(adapter) if adapter is not None else None
    pipe = load_pipeline(base_model)
    out.mkdir(parents=True, exist_ok=True)
    for variant, applied in (("plain", None), ("adapter", loaded))[: 1 if loaded is None else 2]:
        pictures = draw(pipe, prompts, [seed] * len(prompts), applied, steps=steps, guidance=guidance, weight=weight,
                        t5_tokens=loaded.t5_tokens if loaded else None)  # fmt: skip
        for index, picture in enumerate(pictures):
            path = out / f"{index:03d}-{variant}.png"
            picture.save(path)
            say(str(path))


def evaluate(
    config: Annotated[
        str | None, typer.Argument(help="YAML file, such as configs/shapes.yaml; leave it out with --pipeline.")
    ] = None,
    overrides: OverridesArgument = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder or hub id of the adapter (default: that in the run folder).")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Folder or hub id of a pipeline, to evaluate an adapter without a config.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompt file (.jsonl, .yaml) to use instead of the config's sets and files.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures and report (default: the run folder, or runs/evaluation).")
    ] = None,
) -> None:
    """Score pictures without and with the adapter.

    Draws narratives, narratives with the adapter and complex prompts, scores them, and writes the report.
    """
    from sur.evaluation import evaluate as score
    from sur.evaluation import kept_evaluation
    from sur.evaluation.drawing import pictures_of
    from sur.evaluation.prompts.sets import prompt_sets
    from sur.evaluation.report.report import write_report
    from sur.support.log import log_to_stderr
    from sur.support.progress import Progress
    from sur.support.signals import stopped_with

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
    say(f"report: {write_report(subject, result, run)}")


def _subject(
    config: str | None,
    overrides: list[str],
    adapter: Path | None,
    pipeline: str | None,
    prompts: Path | None,
    out: Path | None,
) -> "tuple[RunConfig | None, Subject]":
    """The run and the adapter to judge; with `pipeline` there is no run, and `config` is an override."""
    from sur.adapter.hub import adapter_folder
    from sur.config.run import evaluation_settings
    from sur.config.run_folder import RunFolder
    from sur.evaluation import Subject
    from sur.support.errors import ConfigError

    if prompts is not None:
        overrides = [*overrides, "evaluate.sets=[]", f"evaluate.files={json.dumps([str(prompts)])}"]
    if pipeline is None:
        if config is None:
            raise ConfigError("give a config file, or --pipeline FOLDER --adapter FOLDER --prompts FILE")
        run = read_config(Path(config), overrides)
        folder = RunFolder(run.run_dir).adapter if adapter is None else adapter_folder(adapter)
        return run, Subject(run.base, folder, run.evaluate, out or run.run_dir)
    if adapter is None:
        raise ConfigError("--pipeline wants --adapter FOLDER beside it")
    adapter = adapter_folder(adapter)
    settings = evaluation_settings(overrides if config is None else [config, *overrides])
    return None, Subject((pipeline, None), adapter, settings, out or Path("runs/evaluation"))


def print_scores(result: "Evaluation") -> None:
    """Print every score, the adapter against the narrative, and the share of the gap that the adapter closes."""
    table = Table("set", "scorer", "group", "prompt", "pictures", "score", "outline fit", "fréchet")
    for row in result.rows:
        fit, distance = (
            "" if value is None else f"{value:.{digits}f}" for value, digits in ((row.fit, 3), (row.frechet, 2))
        )
        pictures = str(row.pictures)
        table.add_row(row.set, row.scorer, row.group, row.condition, pictures, str(row.score), fit, distance)
    console().print(table)
    closed = {(gap.set, gap.scorer, gap.group): gap.closed for gap in result.gaps}
    for one in result.comparisons:
        share = closed.get((one.set, one.scorer, one.group))
        gap = "no gap to close" if share is None or math.isnan(share.value) else f"share of the gap closed {share}"
        say(
            f"{one.set}, {one.scorer}, {one.group}: {gap}; adapter - narrative {one.difference}, "
            f"prompts better {one.wins}, worse {one.losses}, the same {one.ties}, p = {one.p:.2g}"
        )


def publish(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/shapes.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="New folder for adapter, card and pictures.", show_default=False)],
    license: Annotated[str, typer.Option(help="Licence of the adapter: an SPDX name, or other.")] = "",
    data_license: Annotated[str, typer.Option(help="Licence of the rows that the adapter was trained on.")] = "",
    base_license: Annotated[str, typer.Option(help="Licence of the base model.")] = "",
    llm_license: Annotated[str, typer.Option(help="Licence of the LLM whose features were used.")] = "",
    push: Annotated[
        str | None, typer.Option(help="Hub repository to push the folder to, such as you/your-adapter.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public (default: private).")] = False,
) -> None:
    """Write an adapter with a model card of its measured scores.

    The licences of rows and models are required.
    """
    from sur.adapter.hub import push as push_folder
    from sur.evaluation.report.model_card import publish_adapter

    licences = {"adapter": license, "data": data_license, "base model": base_license, "LLM": llm_license}
    say(f"published: {publish_adapter(run_dir, folder, licences, push)}")
    if push is not None:
        say(f"pushed: {push_folder(folder, push, private=not public)}")


def convert(
    source: Annotated[
        Path, typer.Argument(help="The authors' .pt file, or the folder of an adapter.", show_default=False)
    ],
    target: Annotated[
        Path, typer.Argument(help="New folder for a .pt file, or new .pt file for a folder.", show_default=False)
    ],
    weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The authors' adapter_weight (0.1 in run.sh), which no .pt file holds."),
    ] = None,
) -> None:
    """Convert the authors' checkpoint to an adapter, or back.

    An adapter of `variant: released` becomes a checkpoint that their script loads.
    """
    from sur.adapter.adapter import Adapter
    from sur.adapter.released.adapter import ReleasedAdapter
    from sur.adapter.released.pt_files import read_pt, write_pt
    from sur.support.errors import ConfigError
    from sur.support.files import replacing_folder

    if (source.suffix == ".pt") == (target.suffix == ".pt"):
        raise ConfigError("one of the two must be a .pt file, the other an adapter's folder")
    if target.exists():
        raise ConfigError(f"{target} exists; remove it, or choose another target")
    if source.suffix == ".pt":
        if weight is None:
            raise ConfigError(
                "give --weight: no .pt file holds it, the authors' path does (adapterw0.1 is --weight 0.1)"
            )
        adapter = read_pt(source, weight)
        with replacing_folder(target) as partial:
            adapter.save_pretrained(partial)
        say(f"adapter: {target}")
        return
    if weight is not None:
        raise ConfigError("leave --weight out: the folder's config.json has it, and a .pt file holds none")
    adapter = Adapter.from_pretrained(source)
    if not isinstance(adapter, ReleasedAdapter):
        raise ConfigError(f"{source} holds a corrected adapter, which the authors' code has no place for")
    write_pt(adapter, target)
    say(f"written: {target}; where it is loaded, set adapter.adapter_weight = {adapter.config.weight}")
