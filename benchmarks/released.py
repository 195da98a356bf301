"""What the released adapter does to pictures beside the corrected one: trains both from one store, prints one table.

    sur extract configs/shapes.yaml
    python benchmarks/released.py runs/released --seeds 0 1

All trainings see the same rows (those with a complex prompt) in the same order, for the same steps. What was measured
is kept in benchmarks/results/released-*.json and not repeated; remove these files to measure anew.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sur.adapter.attach import AdaptedEncodePrompt, detach
from sur.adapter.base import BaseAdapter
from sur.adapter.generate import load_pipeline
from sur.adapter.released.adapter import ReleasedAdapter
from sur.config.run import RunConfig, load_config
from sur.config.run_folder import RunFolder
from sur.shapes.oracle import detect_objects, facts
from sur.shapes.questions import Question, questions
from sur.training.fit import fit

RESULTS = Path(__file__).parent / "results"
SETS = ("templates", "synonyms")
COMMON = ["loss={}", "train.steps=300", "train.batch_size=32", "train.optimiser=adamw", "train.weight_decay=0.01",
          "train.beta2=0.999", "train.validation_fraction=0.05"]  # fmt: skip
TRAINED = ["train.learning_rate=1e-3", "train.schedule=cosine", "train.warmup_steps=30"]
RELEASED = ["variant=released", "adapter={}"]
LOSSES = {  # by name of a training; a divergence summed over 77 tokens weighs 1/77 of one averaged over them
    "released, their settings": [*RELEASED, "loss={denoising: {weight: 0}}", "train.learning_rate=1e-5",
                                 "train.schedule=constant", "train.warmup_steps=0"],
    "released, our learning rate": [*RELEASED, *TRAINED,
                                    "loss={alignment: {weight: 0.013}, distillation: {weight: 0.013}, "
                                    "denoising: {weight: 0}}"],
    "corrected, the same two losses": [*TRAINED,
                                       "loss={alignment: {form: tokens, measure: kl}, distillation: {form: pooled, "
                                       "measure: kl, temperature: 1, projection: frozen}}"],
    "corrected, attention": [*TRAINED, "loss={alignment: {form: attention}}"],
    "corrected, attention, the demo's optimiser": [
        "loss={alignment: {form: attention}}", "train.optimiser=muon", "train.learning_rate=4e-3", "train.beta2=0.95",
        "train.weight_decay=0.1", "train.schedule=cosine", "train.warmup_steps=30",
    ],
}  # fmt: skip
WAYS = {"together": "64 prompts at once", "alone": "one prompt at a time", "demo": "as in their demo"}


class ReleasedEncodePrompt(AdaptedEncodePrompt):
    """A pipeline's `encode_prompt` as the authors replace it: positive and negative states adapted as one batch."""

    def __call__(self, *args: Any, **kwargs: Any) -> tuple:
        positive, negative, *rest = self.original(*args, **kwargs)
        if negative is None:
            return (self.adapter.adapt(positive), None, *rest)
        negative, positive = self.adapter.adapt(torch.cat([negative, positive])).chunk(2)
        return (positive, negative, *rest)


def attach_as_released(adapter: ReleasedAdapter, pipe: Any) -> Any:
    """The pipeline with the adapter as the authors attach it (their SUR_adapter_pipeline.py), bug for bug.

    Negative and positive states go through the adapter as one batch, dropout alive: the negative prompt then changes
    the positive one's states and the other way round, and no two pictures of one seed are alike unless torch's
    generator is seeded too. `sur.adapter.attach.detach` takes the adapter off. Raises as `attach`.
    """
    family = adapter.attach(pipe).encode_prompt.family  # for the checks of `attach`
    adapter.detach(pipe)
    adapter.train()
    pipe.encode_prompt = ReleasedEncodePrompt(pipe, family, adapter, None)
    return pipe


def states(
    pipe: Any, prompts: Sequence[str], adapter: BaseAdapter | None, way: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the denoiser reads of `prompts` and of as many empty ones, adapted 64 at once or each prompt alone."""
    if isinstance(adapter, ReleasedAdapter) and way == "demo":
        attach_as_released(adapter, pipe)
    elif adapter is not None:
        adapter.attach(pipe)
    size = 64 if way == "together" else 1
    parts = [list(prompts[i : i + size]) for i in range(0, len(prompts), size)]
    encoded = [pipe.encode_prompt(part, pipe.device, 1, True) for part in parts]
    if adapter is not None:
        detach(pipe)
    return torch.cat([each[0] for each in encoded]), torch.cat([each[1] for each in encoded])


def right(config: RunConfig, pipe: Any, asked: Sequence[Question], prompts: Sequence[str], adapter: BaseAdapter | None,
          way: str = "together") -> str:  # fmt: skip
    """Which questions came out exactly right ("0110..."), with the noise of `sur evaluate`."""
    settings = config.evaluate
    torch.manual_seed(settings.seed)  # for dropout
    positive, negative = states(pipe, prompts, adapter, way)
    found = ""
    for start in range(0, len(asked), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        seeds = [settings.seed * 1_000_000 + i for i in range(len(asked))][part]
        pictures = pipe(
            prompt_embeds=positive[part], negative_prompt_embeds=negative[part], guidance_scale=settings.guidance,
            num_inference_steps=settings.steps, generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).images  # fmt: skip
        found += "".join(
            str(int(all(facts(q.scene, detect_objects(p)).values())))
            for q, p in zip(asked[part], pictures, strict=True)
        )
    return found


def measure(config: RunConfig, name: str, folder: Path | None) -> dict[str, dict[str, str]]:
    """Right questions by way and set, of a trained adapter or (None) of the bare pipeline."""
    pipe = load_pipeline(*config.base)
    adapter = BaseAdapter.from_pretrained(folder) if folder else None
    ways = WAYS if "our learning rate" in name else ["alone"]
    found: dict[str, dict[str, str]] = {}
    for set_name in SETS:
        asked = questions(set_name, config.evaluate.prompts, config.evaluate.seed)
        prompts = [q.complex if name == "complex" else q.narrative for q in asked]
        for way in ways:
            found.setdefault(way, {})[set_name] = right(config, pipe, asked, prompts, adapter, way)
    return found


def table(results: dict[str, Any], trained: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
    """Markdown: pictures right with its interval over questions, and the range over seeds."""
    draws = np.random.default_rng(0).integers(128, size=(2000, 128))
    yield "| | drawn | " + " | ".join(f"`{name}` right | seeds" for name in SETS) + " |"
    yield "|---" * (2 + 2 * len(SETS)) + "|"
    for name in ("narrative", *trained, "complex"):
        keys = [f"{name} {seed}" for seed in seeds] if name in trained else [name]
        runs = [results[key] for key in keys if key in results]
        for way in runs[0]:
            cells = []
            for set_name in SETS:
                each = np.array([[int(c) for c in run[way][set_name]] for run in runs], dtype=float)
                low, high = np.quantile(each.mean(0)[draws].mean(1), [0.025, 0.975])
                cells.append(f"{each.mean():.2f} [{low:.2f}, {high:.2f}]")
                cells.append(", ".join(f"{x:.2f}" for x in each.mean(1)) if name in trained else "")
            yield f"| {name} | {WAYS[way] if len(runs[0]) > 1 else ''} | " + " | ".join(cells) + " |"


def main() -> int:
    """Parse, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="for every training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=list(LOSSES), default=list(LOSSES), metavar="NAME")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    jobs: list[tuple[str, list[str]]] = [(name, []) for name in ("narrative", "complex")]
    jobs += [(f"{name} {seed}", [*LOSSES[name], f"train.seed={seed}"]) for seed in asked.seeds for name in asked.only]
    rows = RunFolder(asked.folder / "released, their settings 0").manifest
    results = {}
    for name, overrides in jobs:
        kept = RESULTS / f"released-{re.sub('[^a-z0-9]+', '-', name)}.json"
        if kept.is_file():
            results[name] = json.loads(kept.read_text())
            continue
        same = [f"train.manifest={rows}"] if "corrected" in name else []
        config = load_config(
            "configs/shapes.yaml",
            ["store.path=runs/shapes/store.zarr", *COMMON, *overrides, *same, f"run_dir={asked.folder / name}",
             *asked.overrides],
        )  # fmt: skip
        results[name] = measure(config, name, fit(config) if overrides else None)
        kept.write_text(json.dumps(results[name], indent=1) + "\n")
        print(f"{name}: done", file=sys.stderr)
    print("\n".join(table(results, asked.only, asked.seeds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
