"""The `sur` command: its verbs, and one place where errors become messages and exit codes.

Exit codes: 0 done, 1 damage or faults of the data found, 2 something that the user has to mend, 70 a fault of the
program, with a traceback, 130 and 143 stopped by Ctrl-C and by SIGTERM.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from sur.cli import data, evaluation, features, flows, init, inspect, probe, store, training, view
from sur.cli.arguments import say
from sur.support.signals import Stopped, stop_on_signals

app = typer.Typer(
    name="sur",
    help="Cache features of large frozen models once, then train SUR-adapters from them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _stoppable(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ending with one line and the signal's exit code when a signal stops it."""

    @wraps(command)
    def run(*arguments: object, **options: object) -> None:
        try:
            with stop_on_signals():
                command(*arguments, **options)
        except Stopped as stop:
            say(str(stop), err=True)
            raise typer.Exit(stop.exit_code) from None

    return run


for command in (
    init.init,
    data.build,
    data.lint,
    features.plan,
    features.extract,
    features.serve,
    features.dequantise,
    training.train,
    training.sweep,
    flows.pipeline,
    flows.demo,
    flows.nightly,
    flows.deploy,
    flows.up,
    evaluation.generate,
    evaluation.evaluate,
    evaluation.publish,
    evaluation.convert,
    inspect.inspect,
    probe.probe,
    store.verify,
    store.drop,
    store.compact,
    view.view,
    view.report,
):
    app.command()(_stoppable(command))


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(version("sur-feature-cache"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Cache features of large frozen models once, then train SUR-adapters from them."""


def main() -> None:
    """Entry point of the `sur` command."""
    try:
        app()
    except Exception as error:
        from sur.support.ending import told

        sys.exit(told(error))
