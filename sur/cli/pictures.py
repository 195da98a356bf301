"""Commands that draw: generate and evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sur.cli.arguments import ConfigArgument, OverridesArgument, console, read_config

if TYPE_CHECKING:
    from sur.evaluate import Evaluation


def generate(
    base_model: Annotated[str, typer.Argument(help="Diffusers pipeline folder.", show_default=False)],
    prompts: Annotated[list[str], typer.Argument(help="One or more prompts.", show_default=False)],
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder; none: the bare pipeline only.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/generated"),
    seed: Annotated[int, typer.Option(help="Seed, the same with and without the adapter.")] = 0,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance.")] = 7.5,
    weight: Annotated[float | None, typer.Option(help="How much of the adapter: 0 = off, 1 = as trained.")] = None,
) -> None:
    """Draw each prompt without and with the adapter, from the same seed."""
    from sur.adapter import Adapter
    from sur.generate import generate as draw
    from sur.generate import load_pipeline

    loaded = Adapter.from_pretrained(adapter) if adapter is not None else None
    pipe = load_pipeline(base_model)
    out.mkdir(parents=True, exist_ok=True)
    for variant, worn in (("plain", None), ("adapter", loaded))[: 1 if loaded is None else 2]:
        pictures = draw(pipe, prompts, [seed] * len(prompts), worn, steps=steps, guidance=guidance, weight=weight)
        for index, picture in enumerate(pictures):
            path = out / f"{index:03d}-{variant}.png"
            picture.save(path)
            typer.echo(str(path))


def evaluate(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    adapter: Annotated[Path | None, typer.Option(help="Adapter folder; default: the run folder's.")] = None,
) -> None:
    """Score narrative, narrative + adapter, and complex pictures, and write the report."""
    from sur.evaluate import evaluate as score
    from sur.evaluate import kept_evaluation, pictures_of
    from sur.log import log_to_stderr
    from sur.progress import Progress
    from sur.report import write_report

    settings = read_config(config, overrides)
    folder = adapter or settings.run_dir / "adapter"
    with log_to_stderr():
        result = kept_evaluation(settings, folder)
        if result is None:
            with Progress("evaluate", pictures_of(settings.evaluate), "pictures") as progress:
                result = score(settings, folder, progress.advance)
    print_scores(result)
    typer.echo(f"report: {write_report(settings, result)}")


def print_scores(result: "Evaluation") -> None:
    """The scores of every set and group, and the share of the gap that the adapter closes in each."""
    table = Table("set", "group", "prompt", "pictures", "exactly right", "outline fit", "fréchet")
    for row in result.rows:
        distance = "" if row.frechet is None else f"{row.frechet:.2f}"
        table.add_row(row.set, row.group, row.condition, str(row.pictures), str(row.score), f"{row.fit:.3f}", distance)
    console().print(table)
    for gap in result.gaps:
        typer.echo(f"{gap.set}, {gap.group}: share of the gap closed {gap.closed}")
