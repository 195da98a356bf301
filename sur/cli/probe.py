"""The command that compares the LLM features of a store without training: probe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sur.cli.arguments import StoreArgument, console, store_path

if TYPE_CHECKING:
    from rich.table import Table

    from sur.analysis.probe import Findings


def probe(
    store: StoreArgument,
    recommend: Annotated[
        bool, typer.Option("--recommend", help="Print nothing but the settings of the best layer, for a config.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder of probe.json and the plots; default: `probe` beside a local store.")
    ] = None,
    target: Annotated[str, typer.Option(help="What is predicted: readout, mean, or auto.")] = "auto",
    text: Annotated[str | None, typer.Option(help="Text encoder, where the store has several.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows that take part; of more, this many are drawn.")] = 20_000,
    folds: Annotated[int, typer.Option(min=3, help="Parts held back in turn.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of folds, projections, order and bootstrap.")] = 0,
) -> None:
    """Say which LLM layer tells most of the complex prompt.

    Layer and pooling are judged by what they tell beyond the text encoder. Trains no adapter.
    """
    from sur.analysis.probe import ProbeConfig
    from sur.analysis.probe import probe as run
    from sur.analysis.probe.candidates import candidates_of
    from sur.analysis.probe.plot import plot
    from sur.analysis.probe.results import as_json, caution, recommended, write_findings
    from sur.cache import Store
    from sur.support.errors import ConfigError
    from sur.support.log import log_to_stderr
    from sur.support.progress import Progress

    if target not in ("auto", "readout", "mean"):
        raise ConfigError(f"--target '{target}' must be auto, readout or mean")
    opened = Store.open(store_path(store))
    settings = ProbeConfig(text=text, target=target, max_rows=max_rows, folds=folds, seed=seed)
    features = 2 + len({each.feature for each in candidates_of(opened)})
    with log_to_stderr(), Progress("probe", features, "features") as progress:
        findings = run(opened, settings, lambda name: progress.advance(1, name))
    folder = output if output is not None else _beside(opened.path)
    if folder is not None:
        write_findings(folder, findings)
        plot(folder, findings)
    if json:
        typer.echo(as_json(findings))
    elif recommend:
        typer.echo("\n".join(recommended(findings)))
        if warned := caution(findings):
            typer.echo(warned, err=True)
    else:
        _show(findings)
        if folder is not None:
            typer.echo(f"{folder}: probe.json, probe.png, probe.svg")


def _beside(path: Path | str) -> Path | None:
    """The folder for a local store's results; None for a bucket's, which go nowhere unless told."""
    return path.parent / "probe" if isinstance(path, Path) else None


def _show(findings: "Findings") -> None:
    """Tables of both splits, and what follows."""
    from sur.analysis.probe.results import caution, recommended, rivals, shown
    from sur.config.probe import SPLITS

    out = console()
    out.print(f"{findings.store}: {findings.rows} rows; target: {findings.target}", markup=False)
    for split in SPLITS:
        if split in findings.candidates[0].held:
            out.print(_table(findings, split))
    typer.echo(f"CKA of the text encoder's own states with the target: {shown(findings.text_cka)}")
    if "words" not in findings.candidates[0].held:
        typer.echo("too few rare words to hold any back; ranked on rows like those seen")
    winner = findings.winner()
    if winner is None:
        typer.echo("no candidate is clearly better than random numbers: these states may not help")
    else:
        typer.echo(f"best: {winner.name}")
        if near := rivals(findings):
            typer.echo(f"not clearly worse, a sweep decides: {', '.join(near)}")
        if warned := caution(findings):
            typer.echo(warned)
    typer.echo("\n".join(f"    {line}" for line in recommended(findings)))


def _table(findings: "Findings", split: str) -> "Table":
    from rich.table import Table

    from sur.analysis.probe.results import shown

    first = findings.candidates[0].held[split]
    held = {"words": f"{first.units} words that no fit has seen", "rows": f"{first.units} groups of equal prompts"}
    known = bool(first.known)
    table = Table(
        "candidate", "gain in R²", "first", *(["known of the words"] if known else []), "R², LLM alone",
        "retrieved, both", "CKA",
        title=f"held back: {first.rows} rows, {held[split]}. The text encoder alone: R² {shown(first.r2['text'])}, "
        f"retrieved {shown(first.retrieval['text'])} of {first.gallery:.0f}", title_justify="left",
    )  # fmt: skip
    for each in sorted(findings.candidates, key=lambda c: -c.held[split].gain.value):
        here = each.held[split]
        table.add_row(
            each.name, shown(here.gain), f"{here.first:.0%}", *([shown(here.known["both"])] if known else []),
            shown(here.r2["llm"]), shown(here.retrieval["both"]), shown(each.cka),
        )  # fmt: skip
    noise = findings.noise[split]
    table.add_row(
        "random numbers", shown(noise.gain), "", *([shown(noise.known["both"])] if known else []),
        shown(noise.r2["llm"]), shown(noise.retrieval["both"]), "",
    )  # fmt: skip
    return table
