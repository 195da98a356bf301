"""Leakage: the same prompt or picture on both sides of a training's validation split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from sur.analysis.lint.finding import Finding
from sur.analysis.lint.prompts import folded, hex_ids, quoted
from sur.cache import RowRecord, in_split


def held_back(rows: Sequence[RowRecord], validation_fraction: float) -> np.ndarray:
    """Whether a training holds each row back for validation, bool (rows,), by the loader's own rule."""
    ids = np.frombuffer(b"".join(row.id for row in rows), np.uint8).reshape(-1, 16)
    return in_split(ids, "validation", validation_fraction)


def leakage(
    rows: Sequence[RowRecord],
    validation_fraction: float,
    same_picture: Iterable[Sequence[int]] = (),
    near: Iterable[Sequence[str]] = (),
) -> Iterator[Finding]:
    """Findings of validation rows whose simple prompt, picture or near-duplicate is trained on.

    same_picture: groups of rows' indices. near: groups of ids, as in the findings of near-duplicates.
    """
    in_validation = held_back(rows, validation_fraction)
    prompts: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        prompts.setdefault(folded(row.simple), []).append(index)
    place: Mapping[str, int] = {row.id.hex(): index for index, row in enumerate(rows)}
    kinds = (
        ("the same simple prompt", prompts.values()),
        ("the same picture", same_picture),
        ("nearly the same prompts", ([place[row_id] for row_id in group] for group in near)),
    )
    reported: set[int] = set()
    for what, groups in kinds:
        for group in groups:
            inside = [index for index in group if in_validation[index] and index not in reported]
            trained = [index for index in group if not in_validation[index]]
            if inside and trained:
                reported.update(inside)
                leaked, seen = [rows[i] for i in inside], [rows[i] for i in trained]
                message = (
                    f"held back for validation: {len(inside)} with {what} as {len(trained)} that training sees "
                    f"({quoted(leaked[0].simple)})"
                )
                remedy = "leave the held-back rows out (--write), or take validation losses for what they are"
                yield Finding("leakage", message, remedy, hex_ids([*leaked, *seen]), hex_ids(leaked))
