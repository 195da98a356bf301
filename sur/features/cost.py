"""What an extraction of any size costs on a cluster: bytes, files, tasks, GPU hours, requests, from stated assumptions.

Bytes come from the encoders' shapes, floating-point operations are counted on models without weights (PyTorch's meta
device) of the configured sizes. What hardware makes of them is an assumption, and shown as one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sur.features.encoders import Encoder, build_encoders
from sur.features.plan import stored_array_bytes
from sur.models.locate import locate
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from sur.config.features import LLMConfig, TextConfig, VAEConfig
    from sur.config.run import RunConfig

MULTIPART_BYTES = 5 * 1024 * 1024  # obstore sends larger objects in parts of so many bytes
SMALL_REQUESTS = 22  # of a feature and partition, besides its shards
START_REQUESTS = 24  # of a worker and partition: it reads all rows' ids once, and their prompts to find duplicates
HOUR = 3600.0


@dataclass(frozen=True)
class Assumptions:
    """What cannot be known from a configuration.

    gpu_flops: peak of one GPU in bfloat16, operations a second. utilisation: share of it that a forward pass reaches.
    tokens: of a prompt, in the LLM's tokens. unique: share of rows whose prompt (or picture) no other row has.
    pictures: decoded and brought to size a second by the processor cores beside one GPU. network_bytes: a second,
    between one GPU's host and the store. task_seconds: of orchestration, a task.
    """

    gpu: str = "H100 SXM, dense bfloat16"
    gpu_flops: float = 989e12
    utilisation: float = 0.35
    tokens: float = 40.0
    unique: float = 1.0
    pictures: float = 800.0
    network_bytes: float = 1.25e9
    task_seconds: float = 0.1


@dataclass(frozen=True)
class Scenario:
    """So many rows on so many GPUs."""

    rows: int
    gpus: int


SCENARIOS = (Scenario(57_000, 1), Scenario(10_000_000, 64), Scenario(1_000_000_000, 1024))


@dataclass(frozen=True)
class EncoderCost:
    """One encoder's share of a row. features, arrays: that it writes."""

    key: str
    features: int
    arrays: int
    bytes_per_row: int
    flops: float


@dataclass(frozen=True)
class Cost:
    """What one scenario costs. Hours are of wall time on all its GPUs, requests those to an object store."""

    scenario: Scenario
    partitions: int
    shards: int
    tasks: int
    bytes: int
    gpu_hours: float
    compute_hours: float
    picture_hours: float
    network_hours: float
    orchestration_hours: float
    requests: int

    @property
    def hours(self) -> float:
        """Wall time: pictures are decoded and shards written beside the encoding, orchestration is not."""
        return max(self.compute_hours, self.picture_hours, self.network_hours) + self.orchestration_hours

    @property
    def requests_per_second(self) -> float:
        """Of an object store, mean over the run."""
        return self.requests / (self.hours * HOUR)

    @property
    def tasks_per_second(self) -> float:
        """Of one Prefect server, mean over the run."""
        return self.tasks / (self.hours * HOUR)


def encoder_costs(config: RunConfig, assumptions: Assumptions) -> list[EncoderCost]:
    """Bytes and operations of one row for every encoder, from the models' configs alone."""
    costs = []
    for encoder in build_encoders(config.llm, config.text, config.vae):
        shapes = encoder.shapes()
        specs = [spec for arrays in shapes.values() for spec in arrays.values()]
        tokens = assumptions.tokens if encoder.kind == "llm" else None
        costs.append(
            EncoderCost(
                key=encoder.key,
                features=len(shapes),
                arrays=len(specs),
                bytes_per_row=sum(stored_array_bytes(spec, tokens) for spec in specs),
                flops=_flops(encoder, config, assumptions),
            )
        )
    return costs


def cost(config: RunConfig, scenario: Scenario, encoders: Sequence[EncoderCost], assumptions: Assumptions) -> Cost:
    """What a scenario costs."""
    partitions = math.ceil(scenario.rows / config.store.rows_per_partition)
    bytes_ = scenario.rows * sum(encoder.bytes_per_row for encoder in encoders)
    flops = scenario.rows * assumptions.unique * sum(encoder.flops for encoder in encoders)
    tasks = len(encoders) * math.ceil(partitions / config.flow.partitions_per_task)
    gpu_hours = flops / (assumptions.gpu_flops * assumptions.utilisation) / HOUR
    return Cost(
        scenario=scenario,
        partitions=partitions,
        shards=partitions * sum(encoder.arrays for encoder in encoders),
        tasks=tasks,
        bytes=bytes_,
        gpu_hours=gpu_hours,
        compute_hours=gpu_hours / scenario.gpus,
        picture_hours=scenario.rows / (assumptions.pictures * scenario.gpus) / HOUR if config.vae else 0.0,
        network_hours=2 * bytes_ / (assumptions.network_bytes * scenario.gpus) / HOUR,  # written, then read back
        orchestration_hours=tasks * assumptions.task_seconds / scenario.gpus / HOUR,
        requests=partitions
        * (requests_of_a_partition(config.store.rows_per_partition, encoders) + scenario.gpus * START_REQUESTS),
    )


def requests_of_a_partition(rows_per_partition: int, encoders: Sequence[EncoderCost]) -> int:
    """Requests to an object store by which a partition of every feature is claimed, put, read back and sealed.

    A shard is one put and one get, or a multipart upload (start, parts, end) and one get. Rows, declarations, lock and
    receipt are small, and were counted on a real extraction (tests/features/test_cost.py does so again).
    """
    requests = 0
    for encoder in encoders:
        shard = encoder.bytes_per_row * rows_per_partition / max(1, encoder.arrays)
        puts = 1 if shard <= MULTIPART_BYTES else math.ceil(shard / MULTIPART_BYTES) + 2
        requests += encoder.arrays * (puts + 1) + encoder.features * SMALL_REQUESTS
    return requests


def _flops(encoder: Encoder, config: RunConfig, assumptions: Assumptions) -> float:
    """Floating-point operations of one row's forward pass; a multiplication with addition counts as two."""
    with torch.device("meta"), torch.inference_mode():
        if encoder.kind == "llm":
            assert config.llm is not None
            run = _llm(config.llm, round(assumptions.tokens))
        elif encoder.kind == "text":
            run = _text(config.text)
        else:
            assert config.vae is not None
            run = _vae(config.vae)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
    return float(counter.get_total_flops())


def _llm(config: LLMConfig, tokens: int) -> Any:
    """A forward pass of the LLM's body up to the highest layer that is kept."""
    from transformers import AutoConfig, AutoModel

    located = locate(config.model, config.revision, config.gguf_file)
    given = {"gguf_file": located.gguf_file} if located.gguf_file else {}
    settings = AutoConfig.from_pretrained(located.folder, local_files_only=True, **given)
    settings = settings.get_text_config()
    settings.num_hidden_layers = max(config.layers)
    if getattr(settings, "layer_types", None):
        settings.layer_types = settings.layer_types[: settings.num_hidden_layers]
    model = AutoModel.from_config(settings, dtype=torch.bfloat16).eval()
    # The mask is given: a model that makes its own reads the tokens' values, which meta tensors do not have.
    mask = torch.zeros(1, 1, tokens, tokens, dtype=torch.bfloat16)
    return lambda: model(input_ids=torch.zeros(1, tokens, dtype=torch.long), attention_mask=mask, use_cache=False)


def _text(config: TextConfig) -> Any:
    """A forward pass of every text encoder of the pipeline over a full length of tokens."""
    import transformers

    assert config.model is not None
    folder = locate(config.model, config.revision, needed=()).folder
    index = json.loads((folder / "model_index.json").read_text())
    runs = []
    for part, (_, name) in ((part, entry) for part, entry in index.items() if part.startswith("text_encoder")):
        kind = getattr(transformers, name)
        settings = kind.config_class.from_pretrained(folder / part, local_files_only=True)
        settings._attn_implementation = "eager"
        model = kind(settings).eval()
        length = getattr(settings, "max_position_embeddings", None) or config.t5_tokens or 256
        runs.append((model, torch.zeros(1, length, dtype=torch.long)))
    return lambda: [model(input_ids=ids) for model, ids in runs]


def _vae(config: VAEConfig) -> Any:
    """A forward pass of the VAE's encoder over one picture, and its mirror image where that is stored too."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    assert config.model is not None
    folder = locate(config.model, config.revision, needed=()).folder
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    model: Any = AutoencoderKL.from_config(json.loads((folder / "config.json").read_text()))
    side = config.resolution
    views = 2 if config.flips else 1
    return lambda: model.eval().encode(torch.zeros(views, 3, side, side))


def scenarios(rows: Sequence[int], gpus: Sequence[int]) -> tuple[Scenario, ...]:
    """Every number of rows on every number of GPUs; without either, those of the documentation."""
    if not rows and not gpus:
        return SCENARIOS
    counts = list(rows) or [scenario.rows for scenario in SCENARIOS]
    return tuple(Scenario(count, number) for count in counts for number in (gpus or [1]))


def assume(settings: Sequence[str]) -> Assumptions:
    """The assumptions with some of them replaced, such as `gpu_flops=312e12`.

    Raises: ConfigError for an unknown name or a value that is no number above 0.
    """
    known = {field.name: field.type for field in fields(Assumptions)}
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            raise ConfigError(f"--assume {setting}: give name=value; the assumptions are {', '.join(known)}")
        try:
            given[name] = text if name == "gpu" else float(text)
        except ValueError:
            given[name] = math.nan
        if name != "gpu" and not 0 < given[name] < math.inf:
            raise ConfigError(f"--assume {setting}: '{text}' is no number above 0")
        if name in ("utilisation", "unique") and given[name] > 1:
            raise ConfigError(f"--assume {setting}: {name} is a share, at most 1")
    return replace(Assumptions(), **given)
