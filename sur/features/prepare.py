"""The steps before encoding: read the rows, plan, add the new rows to the store, create its features.

The plan needs the models' config files only, no weights.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sur.cache import FeatureSpec, RowRecord, Store
from sur.config.load import save_config
from sur.config.run_folder import RunFolder
from sur.data import Quarantined, scan_rows, write_quarantine
from sur.features.encoders import Encoder, build_encoders
from sur.features.partition import may_pass
from sur.features.plan import EncoderFeatures, Plan, StoreState, plan_asset, plan_features
from sur.features.readout import needs_readout, readout_arrays, readout_name, readout_spec
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from sur.config.data import DataConfig
    from sur.config.run import RunConfig, StoreConfig

logger = logging.getLogger(__name__)

TOKEN_SAMPLE = 2000  # prompts that are tokenized for the estimate


def plan_extraction(config: RunConfig) -> Plan:
    """Read the rows and return what an extraction would do; writes nothing."""
    records, quarantined = scan_rows(config.data, need_image=config.vae is not None)
    return make_plan(config, build_encoders(config.llm, config.text, config.vae), records, quarantined)


def prepare(config: RunConfig, encoders: Sequence[Encoder]) -> Plan:
    """Read the rows, refuse what cannot fit, add the new rows to the store and create the encoders' features.

    Writes `config.yaml` and `quarantine.jsonl` into the run folder. Returns the plan as it was before.

    Raises:
        NothingEncoded: no row is usable.
        DoesNotFit: the disk is too small.
        cache.IdentityMismatch: a stored feature or asset of the same name was made in another way.
    """
    save_config(config)
    records, quarantined = scan_rows(config.data, need_image=config.vae is not None)
    plan = make_plan(config, encoders, records, quarantined)
    write_quarantine(RunFolder(config.run_dir).quarantine, quarantined)
    plan.require_rows()  # before the store is touched: a disk that is not mounted must not empty the data set
    plan.require_space()
    specs = [spec for encoder in encoders for spec in encoder.specs()]
    _refuse_what_differs(config, specs, records)
    store = Store.open_or_create(config.store.path, config.store.rows_per_partition)
    for spec in specs:
        store.ensure_feature(spec)
    _add_rows(store, config.data.slug, records, len(quarantined))
    for encoder in encoders:
        if encoder.consumes == "image":
            for name in encoder.shapes():
                _retry_unread_pictures(store, config.data, name)
    for spec in specs:
        done = store.n_partitions - len(store.pending(spec.name))
        logger.info("feature %s: %d of %d partitions already done", spec.name, done, store.n_partitions)
    return plan


def make_plan(
    config: RunConfig, encoders: Sequence[Encoder], records: Sequence[RowRecord], quarantined: Iterable[Quarantined]
) -> Plan:
    """Compare the rows with what the store holds already.

    Raises:
        ConfigError: a model is missing, or lacks a layer that the configuration names.
    """
    described = [encoder_features(encoder, records) for encoder in encoders]
    state = store_state(config.store, [name for encoder in described for name in encoder.features])
    rows_new = sum(record.id not in state.row_ids for record in records)
    features = plan_features(state, described, rows_new)
    if needs_readout(config.loss, config.vae):
        arrays = readout_arrays(config.base, config.readout)
        features.append(plan_asset(state, readout_name(config.text), "readout", arrays))
    return Plan(
        store=config.store.path,
        rows_valid=len(records),
        rows_new=rows_new,
        rows_stored=state.rows,
        quarantined=tuple(quarantined),
        features=tuple(features),
        bytes_free=free_bytes(config.store.path),
    )


def store_state(config: StoreConfig, features: Collection[str]) -> StoreState:
    """What the configured store holds, `features` by name; a store that does not exist yet is empty."""
    if not Store.exists(config.path):
        return StoreState(config.path, config.rows_per_partition)
    store = Store.open(config.path)
    known = [name for name in store.features() if name in features]
    pending = {name: store.pending(name) for name in known}
    counts = store.filled().reshape(-1, store.rows_per_partition).sum(axis=1)
    return StoreState(
        path=config.path,
        rows_per_partition=store.rows_per_partition,
        rows=store.n_rows,
        partitions=store.n_partitions,
        row_ids=frozenset(row.tobytes() for row in store.row_ids()),
        pending={name: len(partitions) for name, partitions in pending.items()},
        pending_rows={name: int(counts[partitions].sum()) for name, partitions in pending.items()},
        assets=frozenset(store.assets()),
    )


def encoder_features(encoder: Encoder, records: Sequence[RowRecord]) -> EncoderFeatures:
    """An encoder's features, and its tokens a prompt measured on a sample of the rows.

    Raises:
        ConfigError: the model is missing or unsuitable.
    """
    try:
        shapes = encoder.shapes()
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{encoder.kind}: {error}") from error
    logger.info("measuring %s", ", ".join(shapes))
    return EncoderFeatures(encoder.kind, encoder.consumes, shapes, _tokens_per_row(encoder, records))


def free_bytes(path: Path | str) -> int | None:
    """Free bytes on the disk of a path, or of its nearest folder that exists; None for a URL."""
    if isinstance(path, str):
        return None
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _tokens_per_row(encoder: Encoder, records: Sequence[RowRecord]) -> float | None:
    """Mean tokens of a row's prompt; None for pictures, and for an encoder whose tokenizer cannot be read."""
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


def _refuse_what_differs(config: RunConfig, specs: Sequence[FeatureSpec], records: Sequence[RowRecord]) -> None:
    """Refuse now what could only be refused after hours of encoding: assets come last, and are made from features.

    Raises: IdentityMismatch for a feature or asset that the store has from other settings; ConfigError for a denoiser
    without read-out, or when no row has what the read-out is sampled on.
    """
    store = Store.open(config.store.path, writable=True) if Store.exists(config.store.path) else None
    stored = store.features() if store is not None else {}
    for spec in specs:
        if store is not None and spec.name in stored:
            store.ensure_feature(spec)  # a feature that differs is the cause, an asset made from it the consequence
    if needs_readout(config.loss, config.vae):
        features = {**stored, **{spec.name: spec for spec in specs}}
        readout = readout_spec(features, config.base, config.text, config.vae, config.readout)
        other_rows = store is not None and (store.has_asset(readout) or store.n_rows > 0)
        if not other_rows and not any(record.image and record.complex for record in records):
            raise ConfigError(
                f"no row of {config.data.path} has both a picture and a complex prompt, and the denoiser's read-out is "
                "sampled on such rows; set loss.alignment.form=tokens, or leave the `vae` section out"
            )


def _add_rows(store: Store, dataset: str, records: Sequence[RowRecord], quarantined: int) -> None:
    """Add the new rows, and make the data set exactly these rows."""
    added = store.add_rows(records)
    places = {record.id: record.image for record in records if record.image}
    left, now = store.set_members(dataset, (record.id for record in records), places)
    logger.info("rows: %d valid, %d new, %d quarantined", len(records), added, quarantined)
    if left:
        logger.warning(
            "data set %s: %d rows that it had are gone, edited, unreadable or beyond data.limit; training skips them "
            "(%d left)",
            dataset,
            left,
            now,
        )


def _retry_unread_pictures(store: Store, data: DataConfig, feature: str) -> None:
    """Discard partitions with a row of the data set whose picture was not read then: it was just now.

    Whoever calls this has read all pictures of the data set, so that each is where its row says.
    """
    members, column = store.members(data.slug), data.image_column or "image"
    again = {slot for slot, reason in store.missing(feature).items() if members[slot] and may_pass(reason, column)}
    if again:
        logger.info("feature %s: %d rows whose pictures were not read before are tried again", feature, len(again))
    for partition in sorted({slot // store.rows_per_partition for slot in again}):
        store.discard(feature, partition)
