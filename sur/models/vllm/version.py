"""The vLLM version recorded in feature identities."""

from __future__ import annotations

import subprocess

import httpx

from sur.config.features import VLLMConfig
from sur.models.vllm.retry import answered_object, get_within
from sur.support.errors import EngineGone, EngineRefused

VERSION_OF_VLLM = """
import importlib.util, pathlib, runpy
folder = pathlib.Path(importlib.util.find_spec("vllm").origin).parent  # found, not imported, which takes seconds
print(runpy.run_path(str(folder / "_version.py"))["__version__"])
"""


def feature_version(version: str) -> str:
    """Major and minor version, the part that is in a feature's identity: a new minor version may change the numbers."""
    return ".".join(version.partition("+")[0].split(".")[:2])


def engine_version(config: VLLMConfig, section: str = "llm.vllm") -> str:
    """Version of the running server, or of the environment that would be launched. section: its place in a config.

    Raises:
        EngineRefused: the environment has no vLLM.
        EngineGone: no server answers.
    """
    return feature_version(_installed(config, section) if config.endpoint is None else _served(config, section))


def _installed(config: VLLMConfig, section: str) -> str:
    python = config.python
    done = subprocess.run(
        [python, "-c", VERSION_OF_VLLM],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineRefused(f"{python} ({section}.launch) has no vLLM: {reason}")
    return done.stdout.strip().splitlines()[-1]


def _served(config: VLLMConfig, section: str) -> str:
    try:
        response = get_within(f"{config.endpoint}/version", 10.0).raise_for_status()
        return str(answered_object(response, str(config.endpoint))["version"])
    except (httpx.HTTPError, EngineRefused, KeyError) as error:
        raise EngineGone(
            f"no vLLM answers at {config.endpoint} ({section}.endpoint): {error}. Start it with the command "
            f"that `sur serve CONFIG` prints, or give {section}.launch to have one started with the run"
        ) from error
