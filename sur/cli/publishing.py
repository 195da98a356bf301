"""Command that makes a run's adapter ready to hand on, and pushes it to the hub if asked to."""

from pathlib import Path
from typing import Annotated

import typer


def publish(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/shapes.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="New folder for adapter, card and pictures.", show_default=False)],
    license: Annotated[str, typer.Option(help="Licence of the adapter, an SPDX name or other.")] = "",
    data_license: Annotated[str, typer.Option(help="Licence of the rows that it was trained on.")] = "",
    base_license: Annotated[str, typer.Option(help="Licence of the base model.")] = "",
    llm_license: Annotated[str, typer.Option(help="Licence of the LLM whose features were used.")] = "",
    push: Annotated[str | None, typer.Option(help="Hub repository to push it to, such as you/your-adapter.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; default: private.")] = False,
) -> None:
    """Write an adapter with a model card of what was measured.

    The licences of what went in are asked for.
    """
    from sur.hub import push as push_folder
    from sur.publish import publish as write

    licences = {"adapter": license, "data": data_license, "base model": base_license, "LLM": llm_license}
    typer.echo(f"published: {write(run_dir, folder, licences, push)}")
    if push is not None:
        typer.echo(f"pushed: {push_folder(folder, push, private=not public)}")
