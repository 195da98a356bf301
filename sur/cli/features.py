"""Commands of the feature stage: plan, extract, serve, dequantise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from sur.cli.arguments import ConfigArgument, OverridesArgument, console, read_config, say


def plan(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Estimate bytes, hours, tasks and requests of any number of rows instead."),
    ] = False,
    rows: Annotated[list[int] | None, typer.Option(min=1, help="With --cluster: a number of rows; repeatable.")] = None,
    gpus: Annotated[list[int] | None, typer.Option(min=1, help="With --cluster: a number of GPUs; repeatable.")] = None,
    assume: Annotated[
        list[str] | None, typer.Option(help="With --cluster: an assumption to change, as name=value; repeatable.")
    ] = None,
) -> None:
    """Say what extraction would write, and whether it fits.

    Rows, tokens, bytes for each feature, free space.
    """
    if cluster:
        from sur.cli.show.cost import print_costs

        print_costs(read_config(config, overrides), rows or [], gpus or [], assume or [])
        return
    if rows or gpus or assume:
        from sur.support.errors import ConfigError

        raise ConfigError("--rows, --gpus and --assume are for --cluster; add it, or leave them out")
    settings = read_config(config, overrides)  # a fault in it is shown before the models' libraries are loaded

    from rich.table import Table

    from sur.features.prepare import plan_extraction
    from sur.support.formatting import format_arrays, format_bytes
    from sur.support.log import log_to_stderr

    with log_to_stderr():
        extraction = plan_extraction(settings)
    out = console()
    out.print(
        f"{extraction.rows_valid} valid rows ({extraction.rows_new} new, {extraction.rows_stored} in the store before),"
        f" {len(extraction.quarantined)} quarantined"
    )
    for entry in extraction.quarantined[:5]:
        out.print(f"  {entry.location}: {entry.field}: {entry.reason}")
    table = Table("feature", "arrays", "bytes a row", "partitions done", "tokens", "to write")
    for feature in extraction.features:
        table.add_row(
            feature.name,
            format_arrays(feature.arrays),
            f"{feature.bytes_per_row:,}" if feature.bytes_per_row else "",
            f"{feature.partitions_done} of {feature.partitions_total}",
            _tokens(feature.tokens, feature.consumes),
            format_bytes(feature.bytes_to_write),
        )
    out.print(table)
    free = "" if extraction.bytes_free is None else f", free {format_bytes(extraction.bytes_free)}"
    out.print(f"to write {format_bytes(extraction.bytes_to_write)}{free} at {extraction.store}")
    extraction.require_rows()
    extraction.require_space()


def _tokens(count: int | None, consumes: str) -> str:
    """Tokens of a feature's prompts; "" for a feature of pictures."""
    if consumes not in ("simple", "complex"):
        return ""
    return "unknown (no tokenizer here)" if count is None else f"about {count:,}"


def extract(config: ConfigArgument, overrides: OverridesArgument = None) -> None:
    """Bring the feature store up to date.

    Rows first, then every configured encoder.
    """
    settings = read_config(config, overrides)

    from sur.config.run_folder import RunFolder
    from sur.flows.runtime.launch import run_flow
    from sur.support.formatting import format_bytes

    summary = run_flow("extract", settings)
    say(
        f"{summary['rows']} rows, {summary['quarantined']} quarantined, {summary['partitions']} partitions computed, "
        f"{format_bytes(summary['bytes'])} written, {summary['tokens']} tokens, {summary['wall_seconds']:.1f} s"
    )
    for outcome in summary["features"]:
        say(f"  {outcome}")
    if summary["quarantined"] or any(outcome.lost for outcome in summary["features"]):
        say(f"each row that was left out, with its reason: {RunFolder(settings.run_dir).quarantine}")


def serve(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    run: Annotated[bool, typer.Option("--run", help="Run the command here instead of printing it.")] = False,
    python: Annotated[
        str | None,
        typer.Option(help="Python that has vLLM (default: that of llm.vllm if it launches a server, else python)."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address that the server listens on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port of the server (default: that of llm.vllm.endpoint, else 8000).")
    ] = None,
    exchange: Annotated[
        Path | None,
        typer.Option(help="Folder for hidden states, which both sides can see (default: <run_dir>/exchange)."),
    ] = None,
) -> None:
    """Print or run the command of a vLLM server.

    To be started here or on another machine.
    """
    settings = read_config(config, overrides)

    from sur.features.encoders import LLMEncoder
    from sur.models.vllm.server import connector_path, serve_command, serve_environment, shell_line
    from sur.support.errors import ConfigError

    if settings.llm is None or settings.llm.vllm is None:
        raise ConfigError(
            "nothing to serve: the configuration has no llm.vllm; set llm.backend=vllm and llm.vllm.endpoint"
        )
    vllm = settings.llm.vllm
    interpreter = python or (str(vllm.python) if vllm.launch is not None else "python")
    endpoint_port = urlsplit(vllm.endpoint or "").port
    folder = (exchange or settings.run_dir / "exchange").absolute()
    serving = LLMEncoder(settings.llm).serving()
    command = serve_command(serving, vllm, interpreter, folder, host, port or endpoint_port or 8000)
    path = connector_path((settings.run_dir / "vllm-path").absolute())
    environment = {"PYTHONPATH": str(path), **serve_environment(vllm)}
    if not run:
        say(shell_line(environment, command))
        return
    os.execvpe(command[0], command, {**os.environ, **environment})


def dequantise(
    model: Annotated[str, typer.Argument(help="A .gguf file, its folder, or package:<name>.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="New folder for config, tokenizer and weights.", show_default=False)],
) -> None:
    """Write a GGUF model as safetensors, which vLLM can serve.

    The weights are float32.
    """
    from sur.models.gguf import write_safetensors
    from sur.models.locate import locate

    write_safetensors(locate(model), folder)
    say(f"written: {folder}")
