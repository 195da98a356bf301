"""Commands that show a store and runs in a browser: view serves pages, report writes one."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sur.cli.arguments import StoreArgument, run_config, say, store_path

RunsArgument = Annotated[
    list[Path] | None, typer.Argument(metavar="[RUN]...", help="Run folders, such as runs/shapes.", show_default=False)
]
VaeOption = Annotated[
    str | None,
    typer.Option(help="Folder of the VAE that made the latents (default: that of the run beside the store)."),
]


def view(
    store: StoreArgument,
    runs: RunsArgument = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; with any but loopback, other machines can read.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 8600,
    opened: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser (default: where there is a screen).")
    ] = None,
    vae: VaeOption = None,
) -> None:
    """Look at a store and at runs in a browser.

    Rows, features, pictures; reads only, also while the store is written.
    """
    import webbrowser

    from sur.analysis.web.app import create_app, serve_app
    from sur.analysis.web.security import is_loopback
    from sur.analysis.web.viewer import Viewer
    from sur.support.log import log_to_stderr

    viewer = Viewer(store_path(store), runs or _own_run(store), vae)
    if not is_loopback(host):
        say(f"warning: everyone who reaches {host} can read this store and these runs; there is no password", err=True)

    def ready(address: str) -> None:
        say(f"{viewer.store.path} at {address} (Ctrl-C ends it)")
        if _has_screen() if opened is None else opened:
            webbrowser.open(address)

    with log_to_stderr(once=True):
        serve_app(create_app(viewer, host), host, port, ready)


def report(
    store: StoreArgument,
    runs: RunsArgument = None,
    to: Annotated[
        Path | None, typer.Option(help="HTML file to write (default: store.html beside the store).", show_default=False)
    ] = None,
    statistics: Annotated[
        bool, typer.Option(help="Read every value of every feature for histograms; slow on large stores.")
    ] = True,
    vae: VaeOption = None,
) -> None:
    """Write one HTML page about a store and its runs.

    It needs no network and no server.
    """
    from sur.analysis.reports.store_report import STORE_REPORT, write_store_report
    from sur.support.log import log_to_stderr

    location = store_path(store)
    target = to or (location.parent / STORE_REPORT if isinstance(location, Path) else Path(STORE_REPORT))
    with log_to_stderr():
        write_store_report(location, runs or _own_run(store), target, statistics, vae)
    say(f"report: {target}")


def _own_run(store: str) -> list[Path]:
    """The run whose config file or folder names the store, if it has begun."""
    from sur.config.run_folder import RunFolder

    config = run_config(store)
    return [config.run_dir] if config is not None and RunFolder(config.run_dir).config.is_file() else []


def _has_screen() -> bool:
    """Whether this machine has a screen for a browser."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
