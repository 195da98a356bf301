"""Commands of rows: build and lint."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sur.cli.arguments import ConfigArgument, OverridesArgument, console

if TYPE_CHECKING:
    from sur.analysis.lint.finding import LintReport


def build(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Make rows from pictures or prompts.

    Reads metadata, captions, rewrites, filters; goes on where it was stopped.
    """
    from rich.table import Table

    from sur.config.build_folder import BuildFolder
    from sur.config.curation import load_build_config
    from sur.flows.runtime.launch import run_flow

    settings = load_build_config(config, overrides or [])
    summary = run_flow("build", settings)
    typer.echo(
        f"{summary.rows} rows of {summary.candidates} candidates, {summary.pictures} with a picture, "
        f"{summary.paired} with a complex prompt: {settings.data_dir}"
    )
    if summary.left_out:
        shown = Table("left out", "rows")
        for name, count in summary.left_out.items():
            shown.add_row(name, str(count))
        console().print(shown)
        typer.echo(f"each with its reason: {BuildFolder(settings.run_dir).quarantine}")


def lint(
    source: Annotated[
        str,
        typer.Argument(
            help="A store or its run's folder, or a config file or data folder to check before extraction.",
            show_default=False,
        ),
    ],
    overrides: OverridesArgument = None,
    only: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="Just this check. Repeatable.")] = None,
    skip: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="All but this check. Repeatable.")] = None,
    language: Annotated[str | None, typer.Option(help="Expected language, such as en; default: most rows'.")] = None,
    similarity: Annotated[
        float, typer.Option(min=0, max=1, help="Of prompts, from which they are near-duplicates.")
    ] = 0.8,
    validation_fraction: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share that training holds back; default: the config's, or 0.05.")
    ] = None,
    safety_checker: Annotated[
        Path | None, typer.Option(help="Folder of diffusers' safety checker, or of a pipeline that has one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Findings of a check that are shown.")] = 10,
    write: Annotated[
        Path | None, typer.Option(help="Add the ids of rows to leave out to this file, for data.exclude.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Look for faults of a data set.

    Duplicates, leakage, cut-off prompts, odd pictures, outliers; exit code 1 when something is found.
    """
    from sur.analysis.lint.lint import LintOptions
    from sur.data.exclude import write_exclude
    from sur.support.log import log_to_stderr

    options = {
        "only": tuple(only or ()),
        "skip": tuple(skip or ()),
        "language": language,
        "text_similarity": similarity,
    }
    options |= {"safety_checker": safety_checker}
    if validation_fraction is not None:
        options["validation_fraction"] = validation_fraction
    with log_to_stderr():
        report = _report(source, overrides or [], options, LintOptions)
    held = write_exclude(write, report.leave_out) if write is not None else 0
    if as_json:
        typer.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _print_report(report, limit, write, held)
    if report.findings:
        raise typer.Exit(1)


def _report(source: str, overrides: list[str], given: dict, options: type) -> "LintReport":
    """The report of what `source` is: a config file, a store, or a data source."""
    import logging

    from sur.analysis.lint.lint import lint_data, lint_store
    from sur.cache import Store, store_location
    from sur.cli.arguments import run_config
    from sur.config.data import DataConfig
    from sur.support.errors import ConfigError

    def say(check: str) -> None:
        logging.getLogger("sur.analysis.lint").info("checking: %s", check)

    if (config := run_config(source, overrides)) is not None:
        settings = options(**{"validation_fraction": config.train.validation_fraction} | given)
        if Path(source).is_dir() and Store.exists(config.store.path):
            return lint_store(Store.open(config.store.path), settings, say)
        return lint_data(config.data, config, settings, say)
    if overrides:
        raise ConfigError(f"{overrides[0]} is taken for a setting of a config file, and {source} is none")
    location = store_location(source)
    if Store.exists(location):
        return lint_store(Store.open(location), options(**given), say)
    if not Path(source).expanduser().exists():
        raise ConfigError(f"there is no store, config file or data folder {source}; correct the path")
    return lint_data(DataConfig(path=Path(source)), None, options(**given), say)


def _print_report(report: "LintReport", limit: int, written: Path | None, held: int) -> None:
    """Each check's findings, the first `limit` of each, then what ran and what did not; `held`: ids in the file."""
    counts = Counter(finding.check for finding in report.findings)
    shown: Counter[str] = Counter()
    for finding in report.findings:
        shown[finding.check] += 1
        if shown[finding.check] <= limit:
            ids = " ".join(row[:8] for row in finding.rows[:6]) + " …" * (len(finding.rows) > 6)
            typer.echo(f"{finding.check}: {finding.message}\n    {f'rows {ids}; ' if ids else ''}{finding.remedy}")
        if shown[finding.check] == limit and counts[finding.check] > limit:
            typer.echo(f"{finding.check}: … and {counts[finding.check] - limit} more (--limit, or --json for all)")
    typer.echo(f"{report.source}: {report.rows} rows")
    for check, how in report.checked.items():
        typer.echo(f"  {check:24}{counts[check] or 'none':>6}   {how}")
    for check, why in report.skipped.items():
        typer.echo(f"  {check:24}     -   not checked: {why}")
    if written is not None:
        more = f" ({held} in all)" if held != len(report.leave_out) else ""
        typer.echo(f"{len(report.leave_out)} rows to leave out{more}: data.exclude={written}")
