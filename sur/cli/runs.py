"""Commands that run a configuration: plan, extract, train, pipeline, demo."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sur.cli.arguments import ConfigArgument, OverridesArgument, console, read_config

if TYPE_CHECKING:
    from sur.config import RunConfig


def plan(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Instead: bytes, hours, tasks and requests of any number of rows.")
    ] = False,
    rows: Annotated[list[int] | None, typer.Option(min=1, help="With --cluster: rows; may be repeated.")] = None,
    gpus: Annotated[list[int] | None, typer.Option(min=1, help="With --cluster: GPUs; may be repeated.")] = None,
    assume: Annotated[list[str] | None, typer.Option(help="With --cluster: name=value; may be repeated.")] = None,
) -> None:
    """Say what extraction would write, and whether it fits.

    Rows, tokens, bytes for each feature, free space.
    """
    if cluster:
        from sur.cli.sizes import print_sizes

        print_sizes(read_config(config, overrides), rows or [], gpus or [], assume or [])
        return
    if rows or gpus or assume:
        from sur.errors import ConfigError

        raise ConfigError("--rows, --gpus and --assume are for --cluster; add it, or leave them out")
    from sur.feature_words import arrays_of
    from sur.log import log_to_stderr
    from sur.planning import plan_extraction
    from sur.units import format_bytes

    with log_to_stderr():
        made = plan_extraction(read_config(config, overrides))
    out = console()
    out.print(
        f"{made.rows_valid} valid rows ({made.rows_new} new, {made.rows_stored} in the store before), "
        f"{len(made.quarantined)} quarantined"
    )
    for entry in made.quarantined[:5]:
        out.print(f"  {entry.location}: {entry.field}: {entry.reason}", markup=False)
    table = Table("feature", "arrays", "bytes a row", "partitions done", "tokens", "to write")
    for feature in made.features:
        table.add_row(
            feature.name,
            arrays_of(feature.arrays),
            f"{feature.bytes_per_row:,}" if feature.bytes_per_row else "",
            f"{feature.partitions_done} of {feature.partitions_total}",
            _tokens(feature.tokens, feature.consumes),
            format_bytes(feature.bytes_to_write),
        )
    out.print(table)
    free = "" if made.bytes_free is None else f", free {format_bytes(made.bytes_free)}"
    out.print(f"to write {format_bytes(made.bytes_to_write)}{free} at {made.store}")
    made.require_space()


def extract(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Bring the feature store up to date.

    Rows first, then every configured encoder.
    """
    from flows.launch import run_flow
    from sur.units import format_bytes

    done = run_flow("extract", read_config(config, overrides))
    typer.echo(
        f"{done['rows']} rows, {done['quarantined']} quarantined, {done['partitions']} partitions computed, "
        f"{format_bytes(done['bytes'])} written, {done['tokens']} tokens, {done['wall_seconds']:.1f} s"
    )


def train(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Train the adapter on the store.

    Goes on from the last checkpoint of the run folder.

    `accelerate launch` and torchrun start it in several processes, which train together.
    """
    from cache import Store
    from flows.launch import run_flow
    from sur.processes import launched

    settings = read_config(config, overrides)
    Store.open(settings.store.path)  # what is wrong with it is said before Prefect starts
    folder = run_flow("train", settings)
    if launched()[0] == 0:
        typer.echo(f"adapter: {folder}")


def pipeline(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Extract, train, evaluate and report in one go."""
    from flows.launch import run_flow

    settings = read_config(config, overrides)
    _say_outcome(settings, run_flow("pipeline", settings))


def demo(
    config: Annotated[Path, typer.Option(help="YAML file of the demo.")] = Path("configs/shapes.yaml"),
    rows: Annotated[int, typer.Option(min=1, help="Rows with picture, narrative and complex prompt.")] = 3600,
    unpaired: Annotated[int, typer.Option(min=0, help="Narrative prompts without picture or complex prompt.")] = 2400,
    overrides: OverridesArgument = None,
) -> None:
    """Make the shapes world's rows and run its whole pipeline.

    Ends with a report.
    """
    from flows.launch import run_flow
    from sur.log import log_to_stderr
    from sur.shapes.dataset import write_dataset

    settings = read_config(config, overrides)
    with log_to_stderr():
        write_dataset(settings.data.path, rows, unpaired)
    _say_outcome(settings, run_flow("pipeline", settings))


def _say_outcome(settings: "RunConfig", made: Path) -> None:
    """The scores of a pipeline that has evaluated, and what it made."""
    if settings.evaluate.asked:
        from sur.cli.pictures import print_scores
        from sur.evaluation.results import RESULT, Evaluation

        print_scores(Evaluation.model_validate_json((settings.run_dir / RESULT).read_text()))
    typer.echo(f"{'report' if settings.evaluate.asked else 'adapter'}: {made}")


def _tokens(count: int | None, consumes: str) -> str:
    if consumes not in ("simple", "complex"):
        return ""
    return "unknown (no tokenizer here)" if count is None else f"about {count:,}"
