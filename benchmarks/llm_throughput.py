"""What it costs to have an LLM's hidden states: a naive loop, this project's transformers engine, vLLM; one run.

    make vllm && python benchmarks/llm_throughput.py MODEL_FOLDER [--prompts 300] [--layer 22]

The same prompts for all: lengths as long-tailed as those that people write (log-normal, median 18 words), a third of
them duplicates. The naive loop runs one prompt after the other with `output_hidden_states=True`, as the released
script does, on every prompt; the other two get each distinct prompt once, as an extraction gives it to them. Busy: CPU
time of the engine's processes over wall time x cores.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from vllm_parity import TEXT, VLLM

from sur.config.features import LLMConfig, VLLMConfig
from sur.features.encoders import LLMEncoder
from sur.models.vllm.server import LaunchedServer


def prompts(count: int) -> list[str]:
    """A third of them repeat an earlier one."""
    words = random.Random(0)
    made: list[str] = []
    for number in range(count):
        if number % 3 == 2:
            made.append(words.choice(made))
        else:
            length = min(250, max(1, round(words.lognormvariate(2.9, 0.7))))
            made.append(" ".join(words.choices(TEXT.split(), k=length)))
    return made


def cpu_seconds(process: psutil.Process) -> float:
    """CPU time of a process and of all below it."""
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def measured(work: Callable[[], Any], process: psutil.Process) -> tuple[float, float]:
    """Wall seconds, and the share of the machine's cores that the engine used."""
    cpu, began = cpu_seconds(process), time.perf_counter()
    work()
    wall = time.perf_counter() - began
    return wall, (cpu_seconds(process) - cpu) / wall / (os.cpu_count() or 1)


def naive(folder: Path, layer: int, items: list[str]) -> Callable[[], None]:
    """One prompt at a time, all hidden states, one of them kept."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def work() -> None:
        with torch.inference_mode():
            for item in items:
                out = model(**tokenizer(item, return_tensors="pt"), output_hidden_states=True)
                out.hidden_states[layer][0].mean(0)

    return work


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--layer", type=int, default=22)
    asked = parser.parse_args()
    items = prompts(asked.prompts)
    distinct = list(dict.fromkeys(items))
    here = psutil.Process()
    common: dict[str, Any] = {"model": str(asked.model), "layers": (asked.layer,), "max_tokens": 300}
    hf = LLMEncoder(LLMConfig(**common))
    tokens = sum(hf.count_tokens(items))
    hf.encode(distinct[:2])
    launch = VLLMConfig(launch=VLLM)
    server = LaunchedServer(LLMEncoder(LLMConfig(backend="vllm", vllm=launch, **common)).serving(), launch)
    try:
        server.wait_until_ready()
        reached = VLLMConfig(endpoint=server.address)
        vllm = LLMEncoder(LLMConfig(backend="vllm", vllm=reached, **common))
        vllm.encode(distinct[:2])
        ways = {
            "naive loop": (naive(asked.model, asked.layer, items), here),
            "transformers engine": (lambda: hf.encode(distinct), here),
            "vLLM engine": (lambda: vllm.encode(distinct), psutil.Process(server.pid)),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(3):
            for name, (work, process) in ways.items():
                times[name].append(measured(work, process))
    finally:
        server.stop()
    print(f"{len(items)} prompts, {len(distinct)} distinct, {tokens:,} tokens\n")
    print("| | prompts' tokens/s | of the naive loop | engine busy |\n|---|---|---|---|")
    medians = {name: sorted(each)[1] for name, each in times.items()}
    for name, (wall, busy) in medians.items():
        print(f"| {name} | {tokens / wall:,.0f} | {medians['naive loop'][0] / wall:.1f} | {busy:.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
