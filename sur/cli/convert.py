"""Command that converts adapters between the authors' .pt files and folders of ours."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[Path, typer.Argument(help="The authors' .pt file, or an adapter's folder.", show_default=False)],
    target: Annotated[
        Path, typer.Argument(help="New folder for a .pt file, new .pt file for a folder.", show_default=False)
    ],
    weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Their adapter_weight (0.1 in run.sh); no .pt file holds it.")
    ] = None,
) -> None:
    """Convert the authors' checkpoint to an adapter, or back.

    An adapter of `variant: released` becomes a checkpoint that their script loads.
    """
    from sur.adapter import Adapter
    from sur.errors import ConfigError
    from sur.released.adapter import ReleasedAdapter
    from sur.released.pt_files import read_pt, write_pt

    if (source.suffix == ".pt") == (target.suffix == ".pt"):
        raise ConfigError("one of the two must be a .pt file, the other an adapter's folder")
    if target.exists():
        raise ConfigError(f"{target} exists; remove it, or choose another target")
    if source.suffix == ".pt":
        if weight is None:
            raise ConfigError(
                "give --weight: no .pt file holds it, the authors' path does (adapterw0.1 is --weight 0.1)"
            )
        typer.echo(f"adapter: {read_pt(source, weight).save_pretrained(target)}")
        return
    if weight is not None:
        raise ConfigError("leave --weight out: the folder's config.json has it, and a .pt file holds none")
    adapter = Adapter.from_pretrained(source)
    if not isinstance(adapter, ReleasedAdapter):
        raise ConfigError(f"{source} holds a corrected adapter, which the authors' code has no place for")
    write_pt(adapter, target)
    typer.echo(f"written: {target}; where it is loaded, set adapter.adapter_weight = {adapter.config.weight}")
