"""The command that compares the LLM features of a store without training: probe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sur.cli.arguments import StoreArgument, console, say, store_path

if TYPE_CHECKING:
    from rich.table import Table

    from sur.analysis.probe import ProbeResult
    from sur.analysis.probe.results import HeldOutScores


def probe(
    store: StoreArgument,
    recommend: Annotated[
        bool, typer.Option("--recommend", help="Print nothing but the settings of the best layer, for a config.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of probe.json and the plots (default: `probe` beside a local store)."),
    ] = None,
    target: Annotated[str, typer.Option(help="What is predicted of the complex prompt: readout, mean, or auto.")] = (
        "auto"
    ),
    text: Annotated[
        str | None, typer.Option(help="Slug of the text encoder, where the store has several of them.")
    ] = None,
    max_rows: Annotated[
        int, typer.Option(min=1, help="Rows that take part; of a larger store, so many are drawn at random.")
    ] = 20_000,
    folds: Annotated[int, typer.Option(min=3, help="Folds, each of which is held back in turn.")] = 5,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the folds, random projections, order of rows and bootstrap.")
    ] = 0,
) -> None:
    """Say which LLM layer tells most of the complex prompt.

    Layers and poolings are ranked by what they tell beyond the text encoder. Trains no adapter.
    """
    from sur.analysis.probe import ProbeConfig
    from sur.analysis.probe import probe as score_candidates
    from sur.analysis.probe.candidates import candidates_of
    from sur.analysis.probe.plots import write_plots
    from sur.analysis.probe.results import as_json, caution, recommended, write_probe_result
    from sur.cache import Store
    from sur.support.errors import ConfigError
    from sur.support.log import log_to_stderr
    from sur.support.progress import Progress

    if target not in ("auto", "readout", "mean"):
        raise ConfigError(f"--target '{target}' must be auto, readout or mean")
    opened = Store.open(store_path(store))
    settings = ProbeConfig(text=text, target=target, max_rows=max_rows, folds=folds, seed=seed)
    features = 2 + len({candidate.feature for candidate in candidates_of(opened)})
    with log_to_stderr(), Progress("probe", features, "features") as progress:
        result = score_candidates(opened, settings, lambda name: progress.advance(1, name))
    folder = output if output is not None else _folder_beside(opened.path)
    if folder is not None:
        write_probe_result(folder, result)
        write_plots(folder, result)
    if json:
        say(as_json(result))
    elif recommend:
        say("\n".join(recommended(result)))
        if warning := caution(result):
            say(warning, err=True)
    else:
        _print_result(result)
        if folder is not None:
            say(f"{folder}: probe.json, probe.png, probe.svg")


def _folder_beside(path: Path | str) -> Path | None:
    """The folder for a local store's results; None for a bucket's, which are written only where --output says."""
    return path.parent / "probe" if isinstance(path, Path) else None


def _print_result(result: "ProbeResult") -> None:
    """Print the tables of both splits, and the settings that follow from them."""
    from sur.analysis.probe.results import caution, format_interval, recommended, rivals
    from sur.config.probe import SPLITS

    out = console()
    out.print(f"{result.store}: {result.rows} rows; target: {result.target}")
    for split in SPLITS:
        if split in result.candidates[0].held:
            out.print(_table(result, split))
    say(f"CKA of the text encoder's own states with the target: {format_interval(result.text_cka)}")
    if "words" not in result.candidates[0].held:
        say("too few rare words to hold any back; ranked on rows like those seen")
    winner = result.winner()
    if winner is None:
        say("no candidate is clearly better than random numbers: these states may not help")
    else:
        say(f"best: {winner.name}")
        if names := rivals(result):
            say(f"not clearly worse, a sweep decides: {', '.join(names)}")
        if warning := caution(result):
            say(warning)
    say("\n".join(f"    {line}" for line in recommended(result)))


def _table(result: "ProbeResult", split: str) -> "Table":
    """The scores of all candidates on one split, the largest gain first."""
    from rich.table import Table

    from sur.analysis.probe.results import format_interval

    first = result.candidates[0].held[split]
    units = {"words": f"{first.units} words that no fit has seen", "rows": f"{first.units} groups of equal prompts"}
    known_head = ["known of the words"] if first.known else []
    table = Table(
        "candidate", "gain in R²", "first", *known_head, "R², LLM alone", "retrieved, both", "CKA",
        title=f"held back: {first.rows} rows, {units[split]}. The text encoder alone: "
        f"R² {format_interval(first.r2['text'])}, "
        f"retrieved {format_interval(first.retrieval['text'])} of {first.gallery:.0f}", title_justify="left",
    )  # fmt: skip

    def add_row(name: str, scores: "HeldOutScores", share_first: str, cka: str) -> None:
        known = [format_interval(scores.known["both"])] if first.known else []
        r2, retrieval = format_interval(scores.r2["llm"]), format_interval(scores.retrieval["both"])
        table.add_row(name, format_interval(scores.gain), share_first, *known, r2, retrieval, cka)

    for candidate in sorted(result.candidates, key=lambda c: -c.held[split].gain.value):
        scores = candidate.held[split]
        add_row(candidate.name, scores, f"{scores.first:.0%}", format_interval(candidate.cka))
    add_row("random numbers", result.noise[split], "", "")
    return table
