"""Commands of the data stage: build, lint."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sur.cli.arguments import ConfigArgument, OverridesArgument, console, say

if TYPE_CHECKING:
    from sur.analysis.lint.finding import LintReport


def build(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Make rows from pictures or prompts.

    Reads metadata, captions, rewrites, filters; goes on where it was stopped.
    """
    from sur.config.curation import load_build_config

    settings = load_build_config(config, overrides or [])

    from rich.table import Table

    from sur.config.build_folder import BuildFolder
    from sur.flows.runtime.launch import run_flow

    summary = run_flow("build", settings)
    say(
        f"{summary.rows} rows of {summary.candidates} candidates, {summary.pictures} with a picture, "
        f"{summary.paired} with a complex prompt: {settings.data_dir}"
    )
    if summary.passed_over:
        counts = ", ".join(f"{count} {kind}" for kind, count in summary.passed_over.items())
        hint = "; source.captions_beside reads captions" if settings.source.captions_beside == "ignored" else ""
        say(f"passed over, since they are no pictures: {counts}{hint if '.txt' in summary.passed_over else ''}")
    if summary.left_out:
        table = Table("left out", "rows")
        for name, count in summary.left_out.items():
            table.add_row(name, str(count))
        console().print(table)
        say(f"each with its reason: {BuildFolder(settings.run_dir).quarantine}")


def lint(
    source: Annotated[
        str,
        typer.Argument(
            help="A store or its run's folder, or a config file or data folder to check before extraction.",
            show_default=False,
        ),
    ],
    overrides: OverridesArgument = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Check to run, instead of all; repeatable.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="Check to leave out; repeatable.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the simple prompts, such as en (default: that of most rows).")
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=0, max=1, help="Prompts at least this similar count as near-duplicates.")
    ] = 0.8,
    validation_fraction: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the rows in the validation split (default: the config's, or 0.05)."),
    ] = None,
    safety_checker: Annotated[
        Path | None, typer.Option(help="Folder of diffusers' safety checker, or of a pipeline that has one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Findings of each check to print, at most.")] = 10,
    write: Annotated[
        Path | None, typer.Option(help="File to add the ids of rows to leave out to, for data.exclude.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Look for faults of a data set.

    Duplicates, leakage, cut-off prompts, odd pictures, outliers. Exit code 1 when something is found, 2 when a check
    of --only cannot run, or none can.
    """
    from sur.data.exclude import write_exclude
    from sur.support.log import log_to_stderr

    options: dict[str, Any] = {
        "only": tuple(only or ()),
        "skip": tuple(skip or ()),
        "language": language,
        "text_similarity": similarity,
        "safety_checker": safety_checker,
    }
    if validation_fraction is not None:
        options["validation_fraction"] = validation_fraction
    with log_to_stderr():
        report = _report(source, overrides or [], options)
    excluded = write_exclude(write, report.leave_out) if write is not None else 0
    if as_json:
        say(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _print_report(report, limit, write, excluded)
    if lacking := report.not_run(only or ()):
        from sur.support.errors import ConfigError

        raise ConfigError("; ".join(f"the check {name} was asked for and did not run: {why}" for name, why in lacking))
    if report.findings:
        raise typer.Exit(1)


def _report(source: str, overrides: list[str], options: dict[str, Any]) -> "LintReport":
    """The report on `source`, which is a config file, a store or a data source."""
    import logging

    from sur.analysis.lint.lint import LintOptions, lint_data, lint_store
    from sur.cache import Store, store_location
    from sur.cli.arguments import run_config
    from sur.config.data import DataConfig
    from sur.support.errors import ConfigError

    def on_check(check: str) -> None:
        logging.getLogger("sur.analysis.lint").info("checking: %s", check)

    if (config := run_config(source, overrides)) is not None:
        options.setdefault("validation_fraction", config.train.validation_fraction)
        settings = LintOptions(**options)
        if Path(source).is_dir() and Store.exists(config.store.path):
            return lint_store(Store.open(config.store.path), settings, on_check)
        return lint_data(config.data, config, settings, on_check)
    if overrides:
        raise ConfigError(f"{overrides[0]} is taken for a setting of a config file, but {source} is no config file")
    location = store_location(source)
    if Store.exists(location):
        return lint_store(Store.open(location), LintOptions(**options), on_check)
    if not Path(source).expanduser().exists():
        raise ConfigError(f"there is no store, config file or data folder {source}; correct the path")
    return lint_data(DataConfig(path=Path(source)), None, LintOptions(**options), on_check)


def _print_report(report: "LintReport", limit: int, written: Path | None, excluded: int) -> None:
    """Print the first `limit` findings of each check, then the checks that ran and those that did not.

    excluded: ids in the file `written`, those of earlier runs included.
    """
    counts = Counter(finding.check for finding in report.findings)
    printed: Counter[str] = Counter()
    for finding in report.findings:
        printed[finding.check] += 1
        if printed[finding.check] <= limit:
            ids = " ".join(row[:8] for row in finding.rows[:6]) + " …" * (len(finding.rows) > 6)
            say(f"{finding.check}: {finding.message}\n    {f'rows {ids}; ' if ids else ''}{finding.remedy}")
        if printed[finding.check] == limit and counts[finding.check] > limit:
            say(f"{finding.check}: … and {counts[finding.check] - limit} more (--limit, or --json for all)")
    say(f"{report.source}: {report.rows} rows")
    for check, how in report.checked.items():
        say(f"  {check:24}{counts[check] or 'none':>6}   {how}")
    for check, why in report.skipped.items():
        say(f"  {check:24}     -   not checked: {why}")
    if written is not None:
        more = f" ({excluded} in all)" if excluded != len(report.leave_out) else ""
        say(f"{len(report.leave_out)} rows to leave out{more}: data.exclude={written}")
