"""What a training step costs with everything computed online, as the authors' script does, and from the cache.

`python benchmarks/train.py FOLDER [--size sd15|shapes] [--steps N]`

Same rows, same adapter width, in one run, each case in a process of its own (for its peak of memory), rounds in turn.
Weights are random, of the sizes published for Stable Diffusion 1.5, or those of the shapes world's model: what is
measured is time, not pictures. Prints ratios to the online step, the loader's share, peak memory, counted operations,
and from those an estimate for one 24 GB GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sur.adapter.adapter import Adapter
from sur.adapter.losses import Objective
from sur.adapter.losses.batch import RowBatch
from sur.adapter.released.adapter import ReleasedAdapter
from sur.adapter.released.objective import ReleasedObjective
from sur.cache import ArraySpec, FeatureSpec, Loader, RowRecord, Store, row_id
from sur.config.adapter import AdapterConfig, ReleasedAdapterConfig
from sur.config.losses import LossConfig
from sur.config.training import TrainConfig
from sur.models.denoiser import FrozenDenoiser
from sur.models.readout import ReadOut
from sur.training.trainer import Training

CASES = {
    "online, as released": "VAE, two text-encoder passes, UNet (its loss trains nothing), LLM vector, released adapter",
    "online": "VAE, two text-encoder passes, UNet with gradient, adapter",
    "cached, denoiser": "cached latents and states; UNet with gradient, adapter",
    "cached, attention": "cached states and read-out; no denoiser",
    "cached, tokens": "cached states; no denoiser",
}
SIZES: dict[str, dict[str, Any]] = {
    # config.json of unet, vae and text_encoder of stable-diffusion-v1-5, as far as they are not diffusers' defaults.
    "sd15": {
        "pixels": 512,
        "unet": {"sample_size": 64, "cross_attention_dim": 768},
        "vae": {
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
        },
        "text": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
        "tokens": 77,
        "llm_dim": 5120,
        "batch": 1,
    },
}
SIZES["shapes"] = {"pixels": 64, "folder": "sur/shapes/weights", "llm_dim": 576, "batch": 32}
ROWS = 64
PEAK_OPERATIONS, SHARE = 165e12, 0.4  # of an RTX 4090 in bfloat16 with float32 sums, and how much of it a step reaches


class Models:
    """The frozen models of one size; each is made when it is first asked for."""

    def __init__(self, size: dict[str, Any]) -> None:
        self.size = size
        torch.manual_seed(0)

    def vae(self) -> Any:
        """Pictures to latents."""
        from diffusers import AutoencoderKL

        if "folder" in self.size:
            return AutoencoderKL.from_pretrained(self.size["folder"], subfolder="vae").eval().requires_grad_(False)
        return AutoencoderKL(**self.size["vae"]).eval().requires_grad_(False)

    def text(self) -> Any:
        """Token ids to states."""
        from transformers import CLIPTextConfig, CLIPTextModel

        if "folder" in self.size:
            model = CLIPTextModel.from_pretrained(Path(self.size["folder"]) / "text_encoder", dtype=torch.float32)
        else:
            model = CLIPTextModel(CLIPTextConfig(**self.size["text"]))
        return model.eval().requires_grad_(False)

    def denoiser(self) -> FrozenDenoiser:
        """The UNet with its schedule."""
        from diffusers import DDPMScheduler, UNet2DConditionModel

        if "folder" in self.size:
            return FrozenDenoiser.from_pipeline(self.size["folder"])
        schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        return FrozenDenoiser(UNet2DConditionModel(**self.size["unet"]), schedule)

    def read_out(self, queries: int = 2048) -> ReadOut:
        """What attention alignment reads: random queries at the sizes of the UNet's cross-attention layers."""
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            if "folder" in self.size:
                config = UNet2DConditionModel.load_config(self.size["folder"], subfolder="unet")
                unet: Any = UNet2DConditionModel.from_config(config)  # pyright: ignore[reportArgumentType]
            else:
                unet = UNet2DConditionModel(**self.size["unet"])
        layers = [module for name, module in unet.named_modules() if name.endswith("attn2")]
        shapes = [layer.to_k.weight.shape for layer in layers]
        made = [[torch.randn(shape) / 28 for shape in shapes] for _ in range(2)]
        return ReadOut([torch.randn(queries, shape[0]) for shape in shapes], *made, heads=[la.heads for la in layers])


def shapes_of(size: dict[str, Any]) -> tuple[int, int, tuple[int, int, int]]:
    """Tokens, width of the states, shape of the latents."""
    if "folder" not in size:
        return 77, size["text"]["hidden_size"], (4, 64, 64)
    config = json.loads((Path(size["folder"]) / "text_encoder" / "config.json").read_text())
    return config["max_position_embeddings"], config["hidden_size"], (4, 8, 8)


def make_store(folder: Path, size: dict[str, Any]) -> Store:
    """A store of random features at a size, made once."""
    path = folder / "store.zarr"
    if Store.exists(path):
        return Store.open(path)
    tokens, dim, latent = shapes_of(size)
    store = Store.create(path, ROWS)
    draw = np.random.default_rng(0)
    texts = [(f"row {i}", f"row {i}, 8k") for i in range(ROWS)]
    store.add_rows([RowRecord(row_id(*text, None), *text) for text in texts])
    text = {"states": ArraySpec("float16", (tokens, dim)), "length": ArraySpec("int32", ())}
    arrays = {
        "simple": text,
        "complex": text,
        "latents": {name: ArraySpec("float16", (1, *latent)) for name in ("mean", "logvar")},
        "llm": {"states": ArraySpec("float32", (size["llm_dim"],)), "length": ArraySpec("int32", ())},
    }
    for name, specs in arrays.items():
        store.ensure_feature(FeatureSpec(name, name, {"model": "random"}, specs))
        values = {
            key: np.full(ROWS, 20, np.int32)
            if key == "length"
            else draw.standard_normal((ROWS, *spec.shape)).astype(spec.dtype)
            for key, spec in specs.items()
        }
        store.write_partition(name, 0, values)
    return store


def batches(case: str, size: dict[str, Any], store: Store) -> Iterator[RowBatch]:
    """Rows as the case gets them: from the store, or computed from pictures and prompts on the way."""
    online = case.startswith("online")
    models = Models(size)
    names = {"cached, denoiser": ["simple", "latents"], "online": ["simple"], "online, as released": ["simple", "llm"]}
    loader = Loader(store, names.get(case, ["simple", "complex"]), batch_size=size["batch"])
    vae, text = (models.vae(), models.text()) if online else (None, None)
    tokens = shapes_of(size)[0]
    for batch in loader.forever():
        values: dict[str, Any] = {"length": batch.arrays["simple/length"].long()}
        if vae is None or text is None:
            for name in ("simple", "complex"):
                if f"{name}/states" in batch.arrays:
                    values[name] = batch.arrays[f"{name}/states"].float()
            if "latents/mean" in batch.arrays:
                values["latents"] = tuple(batch.arrays[f"latents/{key}"][:, 0].float() for key in ("mean", "logvar"))
        else:
            with torch.no_grad():
                rows = len(batch.slots)
                posterior = vae.encode(torch.rand(rows, 3, size["pixels"], size["pixels"])).latent_dist
                values["latents"] = (posterior.mean, posterior.logvar)
                values["simple"], values["complex"] = (
                    text(torch.randint(text.config.vocab_size, (rows, tokens)))[0] for _ in range(2)
                )
            if "llm/states" in batch.arrays:
                values |= {"llm": batch.arrays["llm/states"], "llm_length": batch.arrays["llm/length"].long()}
        yield RowBatch(**values)


def training(case: str, size: dict[str, Any]) -> Training:
    """Adapter, losses and optimiser of a case."""
    models, (_, dim, _) = Models(size), shapes_of(size)
    torch.manual_seed(0)
    config = TrainConfig(steps=10**6, warmup_steps=0, device="cpu")
    denoiser = None if case in ("cached, attention", "cached, tokens") else models.denoiser()
    if case == "online, as released":
        loss = LossConfig.model_validate(
            {
                "alignment": {"form": "tokens", "measure": "kl"},
                "distillation": {"form": "pooled", "measure": "kl"},
                "denoising": {"weight": 1.0},
            }
        )
        objective = ReleasedObjective(loss, dim, (size["llm_dim"],), denoiser)
        return Training(ReleasedAdapter(ReleasedAdapterConfig(dim=dim)), objective, config)
    form = {"cached, attention": "attention", "cached, tokens": "tokens"}.get(case, "none")
    loss = LossConfig.model_validate({"alignment": {"form": form}, "denoising": {"weight": float(form == "none")}})
    read_out = models.read_out() if form == "attention" else None
    objective = Objective(loss, dim, read_out=read_out, denoiser=denoiser)
    return Training(Adapter(AdapterConfig(dim=dim, heads=8)), objective, config)


def run_case(case: str, size: dict[str, Any], store: Store, steps: int) -> dict[str, Any]:
    """Seconds of every step after a first one, operations of one, peak memory of this process."""
    made = training(case, size)
    source = batches(case, size, store)
    run = made.run(source)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        next(run)
    taken = [next(run) for _ in range(steps)]
    return {
        "seconds": [step.loader_seconds + step.step_seconds for step in taken],
        "waited": [step.loader_seconds for step in taken],
        "operations": counter.get_total_flops(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "frozen": sum(each.numel() for each in frozen_values(made.objective)),
        "learnt": sum(p.numel() for p in made.parameters),
    }


def frozen_values(objective: Objective) -> Iterator[torch.Tensor]:
    """Weights of the denoiser, or the read-out."""
    yield from (parameter for parameter in objective.parameters() if not parameter.requires_grad)
    yield from objective.buffers()


def main() -> None:
    """Run every case in turn, in rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="sd15")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--case", choices=CASES, help="run one case here and print JSON")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    store = make_store(arguments.folder / arguments.size, size)
    if arguments.case:
        print(json.dumps(run_case(arguments.case, size, store, arguments.steps)))
        return
    found: dict[str, list[dict[str, Any]]] = {case: [] for case in CASES}
    for _ in range(arguments.rounds):
        for case in CASES:
            print(f"running: {case}", file=sys.stderr)
            command = [sys.executable, __file__, str(arguments.folder), "--size", arguments.size, "--case", case]
            steps = arguments.steps * (
                1 if arguments.size == "shapes" or "denoiser" in case or "online" in case else 10
            )
            done = subprocess.run([*command, "--steps", str(steps)], check=True, capture_output=True, text=True)
            found[case].append(json.loads(done.stdout.splitlines()[-1]))
    print_table(found, size)


def print_table(found: dict[str, list[dict[str, Any]]], size: dict[str, Any]) -> None:
    """Medians over all steps of all rounds; estimates with their assumptions."""

    def middle(case: str, key: str) -> float:
        return median(value for each in found[case] for value in each[key])

    rows = size["batch"]
    online, released = middle("online", "seconds"), middle("online, as released", "seconds")
    print(f"{torch.get_num_threads()} threads, float32, batches of {rows}; medians of all steps of all rounds\n")
    print("| step | ms | of online: faster | of released: faster | waits for rows | peak memory | operations a row |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        took = middle(case, "seconds")
        waited = "computes them" if case.startswith("online") else f"{middle(case, 'waited') / took:.2%}"
        first = found[case][0]
        print(
            f"| {case} | {1000 * took:.1f} | {online / took:.2f} | {released / took:.2f} | {waited} | "
            f"{first['peak'] / 2**30:.1f} GiB | {first['operations'] / rows / 1e9:.1f} G |"
        )
    print(f"\nEstimate for one 24 GB GPU (RTX 4090: {PEAK_OPERATIONS / 1e12:.0f} TFLOP/s in bfloat16, of which a step")
    print(f"is taken to reach {SHARE:.0%}; an operation is a multiply or an add), and 57,000 rows:\n")
    print("| step | rows a second | 57,000 rows | frozen weights at 2 bytes | adapter with AdamW at 16 bytes |")
    print("|---|---|---|---|---|")
    for case in CASES:
        first = found[case][0]
        rate = PEAK_OPERATIONS * SHARE / (first["operations"] / rows)
        print(
            f"| {case} | {rate:,.0f} | {57_000 / rate / 60:.1f} min | {first['frozen'] * 2 / 2**30:.2f} GiB | "
            f"{first['learnt'] * 16 / 2**30:.2f} GiB |"
        )


if __name__ == "__main__":
    main()
