"""Prompts whose end an encoder does not read, because they have more tokens than it reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sur.analysis.lint.finding import Finding
from sur.analysis.lint.prompts import quoted, single_row_finding
from sur.analysis.store.blocks import partition_blocks
from sur.cache import RowRecord, Store
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from sur.config.run import RunConfig


def cut_in_data(config: RunConfig, rows: Sequence[RowRecord]) -> Iterator[Finding]:
    """Findings of prompts that the encoders of a configuration would cut, by their tokenizers.

    Raises: ConfigError when a tokenizer is not there.
    """
    from sur.features.encoders import build_encoders

    for encoder in build_encoders(config.llm, config.text):
        truncated = getattr(encoder, "truncated", None)
        prompts = sorted({getattr(row, encoder.consumes) for row in rows} - {""})
        if truncated is None or not prompts:
            continue
        try:
            cut = {prompt for prompt, lost in zip(prompts, truncated(prompts), strict=True) if lost}
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{encoder.kind}: no prompt can be counted: {error}; or leave it: --skip cut-off"
            ) from error
        names = ", ".join(encoder.shapes())
        yield from _cut_prompts(rows, encoder.consumes, cut, names, True)


def cut_in_store(store: Store, rows: Sequence[RowRecord]) -> Iterator[Finding]:
    """Findings of prompts that were cut when they were encoded.

    A receipt counts the prompts that were cut; they are those of the greatest length. If more prompts have this length
    than were cut, some of them just fit: the findings say so, and leave no row out.
    """
    reported: set[tuple[object, frozenset[str]]] = set()
    for name, spec in store.features().items():
        receipts = [r for r in store.receipts(name) if r is not None and r.stats.get("truncated")]
        if "length" not in spec.arrays or not receipts:
            continue
        consumes = spec.identity.get("consumes", "simple")
        lengths: dict[int, int] = {}
        for receipt in receipts:
            for block in partition_blocks(store, name, receipt):
                lengths |= dict(zip(block.slots.tolist(), _tokens(block.lengths), strict=True))
        limit = max(lengths.values(), default=0)
        stored = {row.slot: getattr(row, consumes) for r in receipts for row in store.rows(r.partition)}
        full = frozenset(stored[slot] for slot, length in lengths.items() if length == limit)
        count = sum(receipt.stats["truncated"] for receipt in receipts)
        model = (spec.kind, spec.identity.get("model"), consumes)
        if (model, full) in reported:
            continue  # another layer of the same model
        reported.add((model, full))
        sure = len(full) == count
        unsure = "" if sure else f" (or just fits: {count} of {len(full)} prompts of this length were)"
        yield from _cut_prompts(rows, consumes, full, f"{name}, which reads {limit} tokens{unsure}", sure)


def _tokens(lengths: np.ndarray | None) -> list[int]:
    return [] if lengths is None else lengths.tolist()


def _cut_prompts(
    rows: Sequence[RowRecord], field: str, cut: Collection[str], reader: str, sure: bool
) -> Iterator[Finding]:
    """Findings of the prompts in `cut`; field: simple or complex. Unless `sure`, some of the prompts just fit."""
    for row in rows:
        prompt = getattr(row, field)
        if prompt in cut:
            message = f"the end of the {field} prompt is cut off by {reader} ({quoted(prompt)})"
            finding = single_row_finding(
                "cut-off", row, message, "shorten the prompt, or leave the row out: its end is not learnt"
            )
            yield finding if sure else replace(finding, remedy="shorten the prompt, if its end is cut", leave_out=())
