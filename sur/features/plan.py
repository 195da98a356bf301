"""What an extraction would do: rows, tokens, bytes for each feature, and whether they fit on the disk.

Needs the models' config.json only, no weights.
"""

import logging
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sur.cache import ArraySpec, RowRecord, Store
from sur.config.run import RunConfig
from sur.data import Quarantined, open_rows, scan
from sur.features.assets import readout_arrays, readout_name
from sur.features.encoders import Encoder, build_encoders
from sur.support.errors import ConfigError, DoesNotFit
from sur.support.formatting import format_bytes

logger = logging.getLogger(__name__)

ITEM_BYTES = {"bfloat16": 2}
CHUNK_OVERHEAD_BYTES = 20  # 4 of checksum and 16 of shard index for each inner chunk
TOKEN_SAMPLE = 2000  # prompts that are tokenized for the estimate


@dataclass(frozen=True)
class FeaturePlan:
    """One feature: its arrays' row shapes and what is left to write.

    tokens: estimate over all rows that are left to encode, before duplicates are folded; None if unknown.
    """

    name: str
    kind: str
    consumes: str
    arrays: dict[str, ArraySpec]
    bytes_per_row: int
    rows_to_write: int
    partitions_done: int
    partitions_total: int
    bytes_to_write: int
    tokens: int | None


@dataclass(frozen=True)
class Plan:
    """Everything `sur plan` prints; bytes_free is that of the store's disk, None for a bucket."""

    store: Path | str
    rows_valid: int
    rows_new: int
    rows_stored: int
    quarantined: tuple[Quarantined, ...]
    features: tuple[FeaturePlan, ...]
    bytes_free: int | None

    @property
    def bytes_to_write(self) -> int:
        """Bytes that the missing partitions of all features will take."""
        return sum(feature.bytes_to_write for feature in self.features)

    def require_space(self) -> None:
        """Raises: DoesNotFit, with both figures and the largest feature, when the disk is too small."""
        if self.bytes_free is None or self.bytes_to_write <= self.bytes_free:
            return
        largest = max(self.features, key=lambda feature: feature.bytes_to_write)
        raise DoesNotFit(
            f"the features need {format_bytes(self.bytes_to_write)} but only {format_bytes(self.bytes_free)} "
            f"are free at {self.store}; the largest is {largest.name} with "
            f"{format_bytes(largest.bytes_to_write)}. Free space, put store.path on a larger disk, keep "
            f"fewer layers, pool (llm.pooling=mean), store a smaller dtype, or lower data.limit"
        )


def plan_extraction(config: RunConfig) -> Plan:
    """Scan the rows and say what extraction would do; writes nothing."""
    records, quarantined = scan_rows(config)
    return make_plan(config, records, quarantined)


def scan_rows(config: RunConfig) -> tuple[list[RowRecord], list[Quarantined]]:
    """Validated rows of the configured source, and the rows left out with their reasons."""
    logger.info("reading and checking the rows of %s", config.data.path)
    return scan(open_rows(config.data), need_image=config.vae is not None)


def make_plan(config: RunConfig, records: Sequence[RowRecord], quarantined: Iterable[Quarantined]) -> Plan:
    """Compare the rows with what the store holds already.

    Raises:
        ConfigError: a model is not there, or has not the layers asked for.
    """
    store = Store.open(config.store.path) if Store.exists(config.store.path) else None
    rows_per_partition = store.rows_per_partition if store else config.store.rows_per_partition
    stored = store.row_ids() if store else np.zeros((0, 16), np.uint8)
    known = {bytes(row) for row in stored}
    new = [record for record in records if record.id not in known]
    rows_stored = store.n_rows if store else 0
    old_partitions = store.n_partitions if store else 0
    new_partitions = math.ceil(len(new) / rows_per_partition)
    features = []
    for encoder in build_encoders(config.llm, config.text, config.vae):
        shapes = _shapes(encoder)
        logger.info("measuring %s", ", ".join(shapes))
        tokens_per_row = _tokens_per_row(encoder, records)
        for name, arrays in shapes.items():
            pending = old_partitions
            if store and name in store.features():
                pending = len(store.pending(name))
            rows = len(new) + (rows_stored if pending == old_partitions else pending * rows_per_partition)
            row_bytes = sum(array_bytes(spec) for spec in arrays.values())
            slots = (pending + new_partitions) * rows_per_partition
            padding = tokens_per_row if encoder.kind == "llm" else None  # a pipeline's padding is real numbers
            stored_bytes = sum(stored_array_bytes(spec, padding) for spec in arrays.values())
            overhead = CHUNK_OVERHEAD_BYTES * len(arrays)
            features.append(
                FeaturePlan(
                    name=name,
                    kind=encoder.kind,
                    consumes=encoder.consumes,
                    arrays=dict(arrays),
                    bytes_per_row=row_bytes,
                    rows_to_write=min(rows, rows_stored + len(new)),
                    partitions_done=old_partitions - pending,
                    partitions_total=old_partitions + new_partitions,
                    bytes_to_write=slots * (stored_bytes + overhead),
                    tokens=None if tokens_per_row is None else round(tokens_per_row * rows),
                )
            )
    if wants_readout(config):
        features.append(_readout_plan(config, store))
    return Plan(
        store=config.store.path,
        rows_valid=len(records),
        rows_new=len(new),
        rows_stored=rows_stored,
        quarantined=tuple(quarantined),
        features=tuple(features),
        bytes_free=free_bytes(config.store.path),
    )


def wants_readout(config: RunConfig) -> bool:
    """Whether a loss asks for the denoiser's read-out and there are latents to sample it on."""
    return config.loss.uses_readout and config.vae is not None


def _readout_plan(config: RunConfig, store: Store | None) -> FeaturePlan:
    """The one asset that belongs to no row."""
    arrays = readout_arrays(config)
    name = readout_name(config)
    done = int(store is not None and name in store.assets())
    return FeaturePlan(
        name=name,
        kind="readout",
        consumes="",
        arrays=arrays,
        bytes_per_row=0,
        rows_to_write=0,
        partitions_done=done,
        partitions_total=1,
        bytes_to_write=0 if done else sum(array_bytes(spec) for spec in arrays.values()),
        tokens=None,
    )


def array_bytes(spec: ArraySpec) -> int:
    """Bytes that one row of an array takes."""
    item = ITEM_BYTES.get(spec.dtype) or np.dtype(spec.dtype).itemsize
    return item * math.prod(spec.shape)


def stored_array_bytes(spec: ArraySpec, tokens_per_row: float | None) -> int:
    """Bytes that one row takes on the disk, from above: where token states are packed, their padding takes none."""
    if not spec.packed or len(spec.shape) != 2 or tokens_per_row is None:
        return array_bytes(spec)
    return math.ceil(array_bytes(spec) * min(1.0, tokens_per_row / spec.shape[0]))


def free_bytes(path: Path | str) -> int | None:
    """Free bytes on the disk of a path, or of its nearest folder that exists; None for a URL."""
    if isinstance(path, str):
        return None
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _shapes(encoder: Encoder) -> dict[str, dict[str, ArraySpec]]:
    """The encoder's arrays; a model that is missing or unsuitable is the configuration's fault."""
    try:
        return encoder.shapes()
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{encoder.kind}: {error}") from error


def _tokens_per_row(encoder: Encoder, records: Sequence[RowRecord]) -> float | None:
    """Mean tokens a row for a prompt encoder whose tokenizer is at hand, else None."""
    count = getattr(encoder, "count_tokens", None)
    if count is None or encoder.consumes == "image" or not records:
        return None
    step = max(1, len(records) // TOKEN_SAMPLE)
    sample = records[::step]
    prompts = [getattr(record, encoder.consumes) for record in sample]
    try:
        return sum(count([prompt for prompt in prompts if prompt])) / len(sample)
    except (OSError, ValueError):
        return None
