"""Which losses earn their place: trains every variant over several seeds from one store and prints one table.

    sur extract configs/shapes.yaml
    python benchmarks/ablation.py runs/ablation --seeds 0 1 2

Adapters are judged on the pictures they lead to. What was measured is kept in benchmarks/results and not repeated as
long as settings, rows, features and weights are the same. Settings are chosen with `--sets dev_templates
dev_synonyms` only.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sur.adapter.adapter import Adapter
from sur.adapter.generate import generate, load_pipeline
from sur.cache import Store
from sur.config.run import RunConfig, load_config
from sur.evaluation.prompts.prompts import Condition
from sur.models.fingerprint import weights_fingerprint
from sur.models.locate import locate
from sur.shapes.oracle import facts, look
from sur.shapes.quality import frechet_distance, latent_vectors, rendered
from sur.shapes.questions import SetName, questions
from sur.support.errors import ConfigError
from sur.training.batches import open_loader
from sur.training.fit import fit, frozen_parts, settings_of

RESULTS = Path(__file__).parent / "results"
# What the names of the results were made of when `evaluate` had no other settings.
SETTINGS = {"sets", "prompts", "seed", "steps", "guidance", "batch_size", "resamples", "examples"}
NO_DISTILLATION = "loss.distillation.form=none"
DENOISING = "loss.denoising.weight=5"
VARIANTS = {
    "tokens (the paper's alignment)": ["loss.alignment.form=tokens", NO_DISTILLATION],
    "tokens + pooled LLM (the paper's two)": ["loss.alignment.form=tokens", "loss.distillation.form=pooled"],
    "attention": ["loss.alignment.form=attention", NO_DISTILLATION],
    "attention + pooled LLM": ["loss.alignment.form=attention", "loss.distillation.form=pooled"],
    "attention + token-level LLM": ["loss.alignment.form=attention", "loss.distillation.form=tokens"],
    "attention + teacher": ["loss.alignment.form=attention", "loss.distillation.form=teacher"],
    "denoiser": ["loss.alignment.form=denoiser", NO_DISTILLATION],
    "denoising alone": ["loss.alignment.form=none", NO_DISTILLATION, DENOISING],
    "attention + denoising": ["loss.alignment.form=attention", NO_DISTILLATION, DENOISING],
    "attention + teacher + denoising": [
        "loss.alignment.form=attention",
        "loss.distillation.form=teacher",
        DENOISING,
    ],
}


def measure(config: RunConfig, condition: Condition, adapter: Path | None) -> dict[str, Any]:
    """Draw every set under one condition: which questions came out right ("0110..."), and the Fréchet distance."""
    settings = config.evaluate
    pipe = load_pipeline(*config.base)
    loaded = Adapter.from_pretrained(adapter) if adapter else None
    found: dict[str, Any] = {}
    for name in settings.sets:
        if name == "everyday":
            raise ConfigError("the oracle cannot judge everyday prompts; leave the set out")
        asked = questions(name, settings.prompts, settings.seed)
        pictures = generate(
            pipe, [q.complex if condition == "complex" else q.narrative for q in asked],
            [settings.seed * 1_000_000 + i for i in range(len(asked))], loaded,
            steps=settings.steps, guidance=settings.guidance, batch_size=settings.batch_size,
        )  # fmt: skip
        right = [all(facts(q.scene, look(p)).values()) for q, p in zip(asked, pictures, strict=True)]
        real = latent_vectors(pipe.vae, rendered([q.scene for q in asked], settings.seed))
        found[name] = {
            "right": "".join(str(int(each)) for each in right),
            "frechet": round(frechet_distance(latent_vectors(pipe.vae, pictures), real), 4),
        }
    return found


def run(job: tuple[str, list[str], Condition, Path, int]) -> Path:
    """One training (none for the two baselines) and its measurement, unless its result is there."""
    source, overrides, condition, folder, threads = job
    torch.set_num_threads(threads)
    config = load_config(source, [*overrides, f"run_dir={folder}"])
    result = RESULTS / f"{folder.name}-{_fingerprint(config, condition)}.json"
    if not result.exists():
        found = measure(config, condition, fit(config) if condition == "adapter" else None)
        result.parent.mkdir(parents=True, exist_ok=True)
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(found, indent=1) + "\n")
        partial.replace(result)
    return result


def _fingerprint(config: RunConfig, condition: Condition) -> str:
    """Of what a result depends on, the code and its defaults aside; where files lie does not matter."""
    parts: list[Any] = [config.evaluate.model_dump(mode="json", include=SETTINGS)]
    model = locate(config.base_model).folder
    parts += [weights_fingerprint(model / part) for part in ("text_encoder", "unet", "vae")]
    parts += [hashlib.sha256((model / "tokenizer/tokenizer.json").read_bytes()).hexdigest()]
    sets: list[SetName] = [name for name in config.evaluate.sets if name != "everyday"]
    parts += [repr(questions(name, config.evaluate.prompts, config.evaluate.seed)) for name in sets]
    if condition == "adapter":
        store = Store.open(config.store.path)
        chosen = config.model_dump(mode="json", exclude_defaults=True)  # a setting that is new changes no old result
        compared = settings_of(config)
        parts += [{s: {k: chosen.get(s, {}).get(k) for k in compared[s] if k in chosen.get(s, {})} for s in compared}]
        parts += [frozen_parts(store, config)]
        loader = open_loader(store, config, "train")
        parts += [loader.manifest.ids.tobytes().hex()]
        parts += [{name: store.spec(name).identity_digest for name in loader.features}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def table(results: dict[str, list[Path]], sets: Sequence[SetName], seed: int) -> Iterable[str]:
    """Markdown: each variant's score and closed share of the gap, over all questions and by group."""
    read = {name: [json.loads(path.read_text()) for path in paths] for name, paths in results.items()}
    rng = np.random.default_rng(0)
    for name in sets:
        groups = [each.groups for each in questions(name, len(read["complex"][0][name]["right"]), seed)]
        columns = ["all", *sorted({group for each in groups for group in each})]
        yield f"\n{name}, {len(groups)} questions\n"
        yield "| | score | " + " | ".join(f"closed: {c}" for c in columns) + " | seeds | Fréchet |"
        yield "|---" * (len(columns) + 4) + "|"
        draws = rng.integers(len(groups), size=(2000, len(groups)))
        single = {v: np.array([[int(c) for c in run[name]["right"]] for run in runs]) for v, runs in read.items()}
        right = {v: each.mean(0) for v, each in single.items()}
        for variant, runs in read.items():
            cells = [f"{right[variant].mean():.3f}"]
            for column in columns:
                mask = np.array([column == "all" or column in each for each in groups], dtype=float)
                cells.append("" if variant in ("complex", "narrative") else _closed(right, variant, mask, draws))
            seeds = single[variant].mean(1)
            cells.append(f"{seeds.min():.3f} to {seeds.max():.3f}" if len(seeds) > 1 else "")
            cells.append(f"{np.mean([run[name]['frechet'] for run in runs]):.2f}")
            yield f"| {variant} | " + " | ".join(cells) + " |"


def _closed(right: dict[str, np.ndarray], variant: str, mask: np.ndarray, draws: np.ndarray) -> str:
    def share(chosen: np.ndarray) -> np.ndarray:
        mean = {k: (v * mask)[chosen].sum(-1) / mask[chosen].sum(-1) for k, v in right.items()}
        return (mean[variant] - mean["narrative"]) / (mean["complex"] - mean["narrative"])

    low, high = np.quantile(share(draws), [0.025, 0.975])
    return f"{share(np.arange(len(mask))):.0%} [{low:.0%}, {high:.0%}]"


def main() -> int:
    """Parse, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="for every variant")
    parser.add_argument("--config", default="configs/shapes.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--sets", nargs="+", default=["templates", "synonyms"])
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    parser.add_argument("--threads", type=int, default=1, help="threads of one training")
    asked = parser.parse_args()
    config = load_config(asked.config, asked.overrides)
    shared = [f"store.path={config.store.path}", *asked.overrides, f"evaluate.sets=[{', '.join(asked.sets)}]"]
    jobs: dict[str, list[tuple]] = {
        c: [(asked.config, shared, c, asked.folder / c, asked.threads)] for c in ("complex", "narrative")
    }
    for variant in asked.variants:
        slug = variant.replace(" ", "-").replace("'", "").replace("(", "").replace(")", "").replace("+", "and")
        jobs[variant] = [
            (asked.config, [*shared, *VARIANTS[variant], f"train.seed={seed}"], "adapter",
             asked.folder / f"{slug}-{seed}", asked.threads)
            for seed in asked.seeds
        ]  # fmt: skip
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        flat = [job for group in jobs.values() for job in group]
        done = iter(list(pool.map(run, flat)))
    results = {name: [next(done) for _ in group] for name, group in jobs.items()}
    print("\n".join(table(results, asked.sets, config.evaluate.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
