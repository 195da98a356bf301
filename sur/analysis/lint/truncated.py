"""Prompts whose end an encoder does not read, because it reads only so many tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sur.analysis.lint.finding import Finding
from sur.analysis.lint.prompts import quoted, single
from sur.analysis.store.blocks import partition_blocks
from sur.cache import RowRecord, Store
from sur.support.errors import ConfigError

if TYPE_CHECKING:
    from sur.config.run import RunConfig


def cut_in_data(config: RunConfig, rows: Sequence[RowRecord]) -> Iterator[Finding]:
    """Prompts that the encoders of a configuration would cut, by their tokenizers.

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
    """Prompts that were cut when they were encoded.

    A receipt counts them; which they were is told by their length, the greatest. Where more prompts have it than were
    cut, some just fit: the finding says so, and leaves none out.
    """
    said: set[tuple[object, frozenset[str]]] = set()
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
        if (model, full) in said:
            continue  # another layer of the same model
        said.add((model, full))
        sure = len(full) == count
        unsure = "" if sure else f" (or just fits: {count} of {len(full)} prompts of this length were)"
        yield from _cut_prompts(rows, consumes, full, f"{name}, which reads {limit} tokens{unsure}", sure)


def _tokens(lengths: np.ndarray | None) -> list[int]:
    return [] if lengths is None else lengths.tolist()


def _cut_prompts(
    rows: Sequence[RowRecord], field: str, cut: Collection[str], reader: str, sure: bool
) -> Iterator[Finding]:
    """Prompts (`field`: simple or complex) whose end a reader does not see; `cut` has their texts, if it is `sure`."""
    for row in rows:
        prompt = getattr(row, field)
        if prompt in cut:
            said = f"the end of the {field} prompt is cut off by {reader} ({quoted(prompt)})"
            found = single("cut-off", row, said, "shorten the prompt, or leave the row out: its end is not learnt")
            yield found if sure else replace(found, remedy="shorten the prompt, if its end is cut", leave_out=())
