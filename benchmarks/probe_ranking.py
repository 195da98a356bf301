"""Does `sur probe` rank an LLM's layers and poolings as trained adapters do? Trains one each, and correlates the two.

    for pooling in mean last; do
        sur extract configs/shapes.yaml run_dir=runs/probe store.path=runs/probe/store.zarr \\
            'llm.layers=[0,6,14,22,26,30]' llm.pooling=$pooling
    done
    python benchmarks/probe_ranking.py configs/shapes.yaml run_dir=runs/probe store.path=runs/probe/store.zarr \\
        train.steps=400 loss.distillation.teacher_steps=160 train.warmup_steps=50 \\
        --layers 0 6 14 22 26 30 --poolings mean last --seeds 0 1 --pictures 96

With `--poolings tokens` (the default) every teacher reads token states, of which the probe judges the mean.

Every adapter is trained by a sweep's functions with the teacher on one feature, and asked about narratives with one
word that no paired row has and only the LLM knows: how far the read-out of its states is from that of the complex
prompt's, and how many pictures come out right. Settings are chosen on `dev_synonyms`, so that set is the default. What
is trained and measured already is not repeated.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from sur.adapter.adapter import Adapter
from sur.adapter.base import BaseAdapter
from sur.adapter.generate import generate, load_pipeline
from sur.analysis.probe import ProbeConfig, ProbeResult, probe
from sur.analysis.probe.results import write_probe_result
from sur.cache import Store
from sur.config.run import RunConfig, load_config
from sur.features.encoders.text import TextEncoder
from sur.features.readout import load_readout
from sur.models.fingerprint import weights_fingerprint
from sur.shapes.oracle import detect_objects, facts
from sur.shapes.questions import Question, SetName, questions
from sur.support.log import log_to_stderr
from sur.training.fit import fit
from sur.training.sweep.runs import SweepRun, run_sweep, sweep_runs

Feature = tuple[str, int]  # how it was pooled when it was cached, and the layer
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
        "right": [float(all(facts(q.scene, detect_objects(p)).values())) for q, p in zip(first, pictures, strict=True)],
    }
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps({"key": key, "measured": measured}))
    partial.replace(kept)
    return measured


@torch.no_grad()
def read_out_errors(config: RunConfig, adapter: BaseAdapter | None, asked: Sequence[Question]) -> list[float]:
    """|read-out(adapted) - read-out(complex)|^2 of each question, relative to the latter's variance over all."""
    read_out = load_readout(Store.open(config.store.path), config.text, config.vae)
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


def numbers_of(findings: ProbeResult, features: Sequence[Feature]) -> dict[str, list[float]]:
    """Every measure of the probe, a value a feature; of token states their mean is judged."""
    if len({each.model for each in findings.candidates}) > 1:
        raise SystemExit("the store has features of several LLMs; give one of a single LLM")
    found = {(c.stored, c.layer): c for c in findings.candidates if c.stored != "tokens" or c.pooling == "mean"}
    if absent := [each for each in features if each not in found]:
        raise SystemExit(f"the probe has no layer {absent[0][1]} with pooling {absent[0][0]}; extract it")
    chosen = [found[each] for each in features]
    numbers = {}
    if all(each.held["words"].known for each in chosen):
        numbers["words: known by the LLM alone"] = [each.held["words"].known["llm"].value for each in chosen]
        numbers["words: known by both"] = [each.held["words"].known["both"].value for each in chosen]
    for split in chosen[0].held:
        held = [each.held[split] for each in chosen]
        numbers[f"{split}: gain in R²"] = [each.gain.value for each in held]
        numbers[f"{split}: R² of the LLM alone"] = [each.r2["llm"].value for each in held]
        numbers[f"{split}: retrieval"] = [each.retrieval["both"].value for each in held]
    return {**numbers, "CKA": [each.cka.value for each in chosen]}


def rank_correlation(probed: Sequence[float], outcomes: np.ndarray, resamples: int = 2000) -> str:
    """Spearman's correlation with the mean outcome, (features, questions), and its spread when questions are resampled.

    p: share of all orders of the features that agree or disagree as much. Nothing here says how another training seed
    would have come out.
    """
    means = outcomes.mean(1)
    seen = spearman(probed, means)
    orders = [spearman(probed, means[list(order)]) for order in _orders(len(means))]
    draws = np.random.default_rng(0).integers(outcomes.shape[1], size=(resamples, outcomes.shape[1]))
    low, high = np.nanquantile([spearman(probed, outcomes[:, d].mean(1)) for d in draws], [0.025, 0.975])
    p = np.mean(np.abs(orders) >= abs(seen) - 1e-9)
    return f"{seen:+.2f} [{low:+.2f}, {high:+.2f}] (p {p:.2f})"


def spearman(one: Sequence[float], other: Sequence[float] | np.ndarray) -> float:
    """Correlation of the ranks; ties share theirs."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _orders(n: int) -> list[tuple[int, ...]]:
    """All orders of a few features, or 5,000 random ones of many."""
    if n <= 7:
        return list(permutations(range(n)))
    rng = np.random.default_rng(1)
    return [tuple(rng.permutation(n)) for _ in range(5000)]


def report(findings: ProbeResult, measured: Mapping[Feature, Sequence[dict[str, list[float]]]]) -> Iterator[str]:
    """Markdown: outcomes (a mean over the seeds) and measures of each feature, then how their ranks agree."""
    outcomes = {
        "read-out error": np.array([-np.mean([m["error"] for m in runs], 0) for runs in measured.values()]),
        "pictures right": np.array([np.mean([m["right"] for m in runs], 0) for runs in measured.values()]),
    }
    numbers = numbers_of(findings, list(measured))
    yield "| feature | " + " | ".join([*outcomes, *numbers]) + " |"
    yield "|---" * (1 + len(outcomes) + len(numbers)) + "|"
    for place, (pooling, layer) in enumerate(measured):
        cells = [f"{abs(each[place].mean()):.3f}" for each in outcomes.values()]
        cells += [f"{each[place]:.3f}" for each in numbers.values()]
        yield f"| {pooling}, layer {layer} | " + " | ".join(cells) + " |"
    yield f"\nSpearman's rank correlation over {len(measured)} features, positive where both call the same better\n"
    yield "| | " + " | ".join(outcomes) + " |"
    yield "|---" * (1 + len(outcomes)) + "|"
    for name, each in numbers.items():
        yield f"| {name} | " + " | ".join(rank_correlation(each, outcome) for outcome in outcomes.values()) + " |"


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
    parser.add_argument("--target", default="auto", choices=("auto", "readout", "mean"), help="of the probe")
    parser.add_argument("--poolings", nargs="+", default=["tokens"], choices=("tokens", "mean", "last"))
    parser.add_argument("--no-probe", action="store_true", help="only train and measure")
    parser.add_argument("--findings", type=Path, help="probe.json of an earlier probe; default: probes")
    given = parser.parse_intermixed_args()
    layers = ", ".join(map(str, given.layers))
    overrides = [f"llm.layers=[{layers}]", "loss.distillation.form=teacher", *given.overrides]
    config = load_config(given.config, overrides)
    name: SetName = given.set
    asked = questions(name, given.questions)
    measured: dict[Feature, list[dict[str, list[float]]]] = {}
    with log_to_stderr():
        for pooling in given.poolings:
            pooled = [*overrides, f"llm.pooling={pooling}", f"run_dir={config.run_dir / pooling}"]
            runs = sweep_runs(
                given.config, [*pooled, f"store.path={config.store.path}"], [f"loss.distillation.layer={layers}"],
                given.seeds,
            )  # fmt: skip
            for run, each in zip(runs, train(runs, asked, given.pictures).values(), strict=True):
                layer = run.config.loss.distillation.layer
                assert layer is not None  # the sweep is over it
                measured.setdefault((pooling, layer), []).append(each)
        if given.no_probe:
            return 0
        if given.findings:
            findings = ProbeResult.model_validate_json(given.findings.read_text())
        else:
            findings = probe(Store.open(config.store.path), ProbeConfig(target=given.target))
            write_probe_result(config.run_dir, findings)
    print("\n".join(report(findings, measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
