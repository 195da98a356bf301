"""Does `sur probe` rank an LLM's layers as trained adapters do? Trains an adapter a layer, and correlates the two.

    sur extract configs/shapes.yaml run_dir=runs/probe 'llm.layers=[0,6,10,14,18,22,26,30]'
    python benchmarks/probe_ranking.py configs/shapes.yaml --layers 0 6 10 14 18 22 26 30 \\
        run_dir=runs/probe train.steps=300 loss.distillation.teacher_steps=150

Every adapter is trained by a sweep's functions with the teacher on one layer, and asked about narratives with one word
that no paired row has and only the LLM knows: how far the read-out of its states is from that of the complex prompt's,
and how many pictures come out right. Settings are chosen on `dev_synonyms`, so that set is the default. What is trained
and measured already is not repeated.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cache import Store
from sur.adapter import Adapter
from sur.config import RunConfig
from sur.encoders.text import TextEncoder
from sur.fingerprint import weights_fingerprint
from sur.fit import fit
from sur.generate import generate, load_pipeline
from sur.log import log_to_stderr
from sur.readout import load_readout
from sur.shapes.oracle import facts, look
from sur.shapes.questions import Question, SetName, questions
from sur.sweep import SweepRun, run_sweep, sweep_runs

MEASURED = "probe-ranking.json"
QUERIES = 64  # of each layer of the denoiser, for the read-out error


def measure(config: RunConfig, adapter: Path, asked: Sequence[Question], drawn: int) -> dict[str, list[float]]:
    """What an adapter makes of the questions: `error` of each, and whether the pictures of the first `drawn` are right.

    Kept beside the adapter, and repeated only when its weights or the questions change.
    """
    key = [weights_fingerprint(adapter), repr(asked), drawn, config.evaluate.steps, config.evaluate.guidance]
    kept = adapter.parent / MEASURED
    if kept.is_file() and (found := json.loads(kept.read_text()))["key"] == json.loads(json.dumps(key)):
        return found["measured"]
    loaded = Adapter.from_pretrained(adapter)
    first = asked[:drawn]
    pictures = generate(
        load_pipeline(*config.base), [q.narrative for q in first], [1_000_000 + i for i in range(len(first))], loaded,
        steps=config.evaluate.steps, guidance=config.evaluate.guidance, batch_size=config.evaluate.batch_size,
    )  # fmt: skip
    measured = {
        "error": read_out_errors(config, loaded, asked),
        "right": [float(all(facts(q.scene, look(p)).values())) for q, p in zip(first, pictures, strict=True)],
    }
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps({"key": key, "measured": measured}))
    partial.replace(kept)
    return measured


@torch.no_grad()
def read_out_errors(config: RunConfig, adapter: Adapter | None, asked: Sequence[Question]) -> list[float]:
    """|read-out(adapted) - read-out(complex)|^2 of each question, relative to the latter's variance over all."""
    read_out = load_readout(Store.open(config.store.path), config)
    encoder = TextEncoder(config.text)
    simple, wanted = (
        torch.from_numpy(np.asarray(encoder.encode(prompts).values[encoder.feature_name]["states"], np.float32))
        for prompts in ([q.narrative for q in asked], [q.complex for q in asked])
    )
    torch.manual_seed(0)
    picks = read_out.pick(QUERIES)
    errors = []
    for rows in torch.arange(len(asked)).split(64):
        states = simple[rows] if adapter is None else adapter(simple[rows]).states
        errors.append(
            [(g - w).square() for g, w in zip(read_out(states, picks), read_out(wanted[rows], picks), strict=True)]
        )
    variances = [_variance(layer) for layer in read_out(wanted, picks)]
    layers = [
        torch.cat(parts).mean((1, 2, 3)) / v for parts, v in zip(zip(*errors, strict=True), variances, strict=True)
    ]
    return torch.stack(layers).mean(0).tolist()


def _variance(layer: torch.Tensor) -> torch.Tensor:
    """Of each channel over rows and queries, averaged, as the alignment loss has it."""
    return layer.transpose(1, 2).flatten(0, 1).var(0, correction=0).mean()


def train(runs: Sequence[SweepRun], asked: Sequence[Question], drawn: int) -> dict[str, dict[str, list[float]]]:
    """Train what is not trained yet and measure it, run by run; raises RuntimeError for one that fails."""
    found = {}
    for run in runs:
        (outcome,) = run_sweep([run], fit)
        if outcome.error:
            raise RuntimeError(f"{run.name}: {outcome.error}")
        found[run.name] = measure(run.config, run.config.run_dir / "adapter", asked, drawn)
        print(run.name, *(f"{name} {np.mean(each):.4f}" for name, each in found[run.name].items()), flush=True)
    return found


def main() -> int:
    """Train, measure, probe, and print what agrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="for every training")
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", default="dev_synonyms", choices=("dev_synonyms", "synonyms"))
    parser.add_argument("--questions", type=int, default=512, help="of which the read-out error is the mean")
    parser.add_argument("--pictures", type=int, default=128, help="of which are drawn")
    given = parser.parse_intermixed_args()
    layers = ", ".join(map(str, given.layers))
    overrides = [f"llm.layers=[{layers}]", "loss.distillation.form=teacher", *given.overrides]
    runs = sweep_runs(given.config, overrides, [f"loss.distillation.layer={layers}"], given.seeds)
    name: SetName = given.set
    asked = questions(name, given.questions)
    with log_to_stderr():
        train(runs, asked, given.pictures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
