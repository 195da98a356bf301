"""What an extraction would write: rows, tokens and bytes of each feature, and whether they fit on the disk.

Everything here is arithmetic on facts that `sur.features.prepare` gathers; no file is read, no model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sur.cache import ArraySpec
from sur.cache.format.checksum import CRC_BYTES
from sur.cache.format.shard import Layout
from sur.data import Quarantined
from sur.support.errors import DoesNotFit, NothingEncoded
from sur.support.formatting import format_bytes


@dataclass(frozen=True)
class StoreState:
    """What a store holds before the extraction.

    pending: number of partitions that each feature lacks. pending_rows: of rows in them; where it is not known, they
    count as full.
    """

    path: Path | str
    rows_per_partition: int
    rows: int = 0
    partitions: int = 0
    row_ids: frozenset[bytes] = frozenset()
    pending: Mapping[str, int] | None = None
    pending_rows: Mapping[str, int] | None = None
    assets: frozenset[str] = frozenset()


@dataclass(frozen=True)
class EncoderFeatures:
    """The features that one encoder makes: feature name -> array name -> spec of one row's array.

    tokens_per_row: mean number of tokens of a prompt; None where it is not known.
    """

    kind: str
    consumes: str
    features: Mapping[str, Mapping[str, ArraySpec]]
    tokens_per_row: float | None = None


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
    """Everything that `sur plan` prints. bytes_free: of the store's disk; None for a bucket."""

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

    def require_rows(self) -> None:
        """Raises: NothingEncoded, with the first reason, when no row of the source is usable."""
        if self.rows_valid:
            return
        if not self.quarantined:
            raise NothingEncoded("data.path holds no row at all; correct it, or restore the file of rows")
        first = self.quarantined[0]
        raise NothingEncoded(
            f"all {len(self.quarantined)} rows were left out; the first, {first.location}, because of {first.field}: "
            f"{first.reason}; {first.remedy}"
        )

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


def plan_features(state: StoreState, encoders: Sequence[EncoderFeatures], rows_new: int) -> list[FeaturePlan]:
    """The plan of every encoder's features, in the encoders' order, for a store to which `rows_new` rows are added."""
    return [
        _plan_feature(state, encoder, name, arrays, rows_new)
        for encoder in encoders
        for name, arrays in encoder.features.items()
    ]


def plan_asset(state: StoreState, name: str, kind: str, arrays: Mapping[str, ArraySpec]) -> FeaturePlan:
    """The plan of an asset, which belongs to no row and is written as one partition."""
    done = name in state.assets
    return FeaturePlan(
        name=name,
        kind=kind,
        consumes="",
        arrays=dict(arrays),
        bytes_per_row=0,
        rows_to_write=0,
        partitions_done=int(done),
        partitions_total=1,
        bytes_to_write=0 if done else sum(spec.nbytes for spec in arrays.values()),
        tokens=None,
    )


def stored_array_bytes(spec: ArraySpec, tokens_per_row: float | None) -> int:
    """Upper bound of the bytes that one row takes on the disk: the padding of packed token states takes none."""
    if not spec.packed or len(spec.shape) != 2 or tokens_per_row is None:
        return spec.nbytes
    return math.ceil(spec.nbytes * min(1.0, tokens_per_row / spec.shape[0]))


def _shard_bytes(layout: Layout, rows: int, partitions: int, tokens_per_row: float | None) -> int:
    """Upper bound of the bytes of an array's shards: empty slots take none where each row is a chunk by itself."""
    if layout.rows_per_chunk == 1:
        chunks = rows * (stored_array_bytes(layout.spec, tokens_per_row) + CRC_BYTES)
    else:
        chunks = partitions * (layout.chunk_bytes + CRC_BYTES)
    return chunks + partitions * layout.index_bytes


def _plan_feature(
    state: StoreState, encoder: EncoderFeatures, name: str, arrays: Mapping[str, ArraySpec], rows_new: int
) -> FeaturePlan:
    new_partitions = math.ceil(rows_new / state.rows_per_partition)
    pending = (state.pending or {}).get(name, state.partitions)
    full = state.rows if pending == state.partitions else pending * state.rows_per_partition
    rows = rows_new + (state.pending_rows or {}).get(name, full)
    rows_to_write = min(rows, state.rows + rows_new)
    tokens_per_row = encoder.tokens_per_row
    padding = tokens_per_row if encoder.kind == "llm" else None  # the padding of a pipeline's states is real numbers
    bytes_to_write = sum(
        _shard_bytes(Layout(spec, state.rows_per_partition), rows_to_write, pending + new_partitions, padding)
        for spec in arrays.values()
    )
    return FeaturePlan(
        name=name,
        kind=encoder.kind,
        consumes=encoder.consumes,
        arrays=dict(arrays),
        bytes_per_row=sum(spec.nbytes for spec in arrays.values()),
        rows_to_write=rows_to_write,
        partitions_done=state.partitions - pending,
        partitions_total=state.partitions + new_partitions,
        bytes_to_write=bytes_to_write,
        tokens=None if tokens_per_row is None else round(tokens_per_row * rows),
    )
