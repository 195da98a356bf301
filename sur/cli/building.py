"""The command that builds rows from pictures and prompts."""

import typer

from sur.cli.arguments import ConfigArgument, OverridesArgument, console


def build(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Make rows from pictures or prompts.

    Reads metadata, captions, rewrites, filters; goes on where it was stopped.
    """
    from rich.table import Table

    from flows.launch import run_flow
    from sur.build.config import load_build_config
    from sur.build.rows_folder import QUARANTINE

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
        typer.echo(f"each with its reason: {settings.run_dir / QUARANTINE}")
