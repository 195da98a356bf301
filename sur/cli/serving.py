"""Commands around vLLM: print or run the server's command, write a GGUF model as safetensors."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from sur.cli.arguments import ConfigArgument, OverridesArgument, read_config


def serve(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    run: Annotated[bool, typer.Option("--run", help="Run it here instead of printing it.")] = False,
    python: Annotated[
        str | None, typer.Option(help="Python with vLLM; default: llm.vllm.launch's, else python.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; default: that of llm.vllm.endpoint, else 8000.")] = None,
    exchange: Annotated[
        Path | None, typer.Option(help="Folder of the states, seen by both sides; default: <run_dir>/exchange.")
    ] = None,
) -> None:
    """Print or run the command of a vLLM server.

    To be started here or on another machine.
    """
    from sur.encoders import LLMEncoder
    from sur.errors import ConfigError
    from sur.vllm.server import connector_path, serve_command, serve_environment, shell_line

    settings = read_config(config, overrides)
    if settings.llm is None or settings.llm.vllm is None:
        raise ConfigError(
            "nothing to serve: the configuration has no llm.vllm; set llm.backend=vllm and llm.vllm.endpoint"
        )
    vllm = settings.llm.vllm
    chosen = python or (str(vllm.python) if vllm.launch is not None else "python")
    told = urlsplit(vllm.endpoint or "").port
    folder = (exchange or settings.run_dir / "exchange").absolute()
    serving = LLMEncoder(settings.llm).serving()
    command = serve_command(serving, vllm, chosen, folder, host, port or told or 8000)
    path = connector_path((settings.run_dir / "vllm-path").absolute())
    environment = {"PYTHONPATH": str(path), **serve_environment(vllm)}
    if not run:
        typer.echo(shell_line(environment, command))
        return
    os.execvpe(command[0], command, {**os.environ, **environment})


def dequantise(
    model: Annotated[str, typer.Argument(help="A .gguf file, its folder, or package:<name>.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="New folder for config, tokenizer and weights.", show_default=False)],
) -> None:
    """Write a GGUF model as safetensors, which vLLM can serve.

    The weights are float32.
    """
    from sur.encoders.gguf_files import write_safetensors
    from sur.encoders.locate import locate

    write_safetensors(locate(model), folder)
    typer.echo(f"written: {folder}")
